"""Units that this device does not hold and must compute itself: they come from peers, verified, for a while."""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
from collections import OrderedDict, deque
from pathlib import Path

import numpy as np

from node.errors import KekahydeError
from node.model.unit import UnitRef
from node.store.files import writing_to
from node.store.manifest import Manifest
from node.store.unit_file import load_unit, unit_path
from node.transfer.disk import BlobDisk
from node.transfer.download import CancelledError, Download, NoSourceError
from node.transfer.holders import holders_of
from node.transfer.jobs import Job
from node.transfer.surroundings import Surroundings
from protocol.linear.field import Weights
from protocol.transfer.actions import Wanted

log = logging.getLogger(__name__)

FOLDER_PREFIX = ".borrowed-"
PATIENCE_S = 2.0
"""If no holder of a unit is found for this long, it must be asked for again."""


class BorrowedUnits:
    """Weights of one model's units, at most `limit_bytes`; the oldest are dropped first.

    A `WeightLender`: one thread asks, another fetches. `close` ends it.
    """

    def __init__(self, around: Surroundings, model_id: bytes, manifest: Manifest, limit_bytes: int) -> None:
        self._around = around
        self._model_id = model_id
        self._manifest = manifest
        self._limit_bytes = limit_bytes
        self._folder = around.models_dir / f"{FOLDER_PREFIX}{secrets.token_hex(8)}"
        self._job = Job("borrow", model_id.hex())
        self._news = threading.Condition()
        self._asked: deque[UnitRef] = deque()
        self._here: OrderedDict[UnitRef, Weights] = OrderedDict()
        self._thread: threading.Thread | None = None
        self.trouble: str | None = None
        """Why the last requested unit did not come; None if it did."""
        self.fetched_bytes = 0

    def ask(self, ref: UnitRef) -> None:
        """Request a unit; returns at once."""
        if ref.num_bytes > self._limit_bytes:
            self.trouble = (
                f"unit {ref.name} takes {ref.num_bytes / 2**20:.0f} MiB, {self._limit_bytes / 2**20:.0f} MiB may be "
                "borrowed: give more with --memory"
            )
            return
        with self._news:
            if ref in self._here or ref in self._asked or self._job.stop.is_set():
                return
            self._asked.append(ref)
            self._news.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._main, name="borrowed units", daemon=True)
                self._thread.start()

    def weights(self, ref: UnitRef) -> Weights | None:
        """The complete, verified weights of a unit; None until they are here."""
        with self._news:
            if ref in self._here:
                self._here.move_to_end(ref)
            return self._here.get(ref)

    @property
    def num_bytes(self) -> int:
        """Size of the units that are here now."""
        with self._news:
            return sum(ref.num_bytes for ref in self._here)

    def close(self) -> None:
        """Nothing is wanted any more."""
        with self._news:
            self._job.stop.set()
            self._asked.clear()
            self._here.clear()
            self._news.notify()
        if self._thread is not None:
            self._thread.join()

    def _main(self) -> None:
        try:
            while (ref := self._next()) is not None:
                self._fetch(ref)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _next(self) -> UnitRef | None:
        with self._news:
            self._news.wait_for(lambda: self._asked or self._job.stop.is_set())
            return None if self._job.stop.is_set() else self._asked[0]

    def _fetch(self, ref: UnitRef) -> None:
        try:
            weights = self._fetched(ref)
        except CancelledError:
            return
        except NoSourceError:
            self._settled(ref, None, "no connected peer has its weights")
        except (KekahydeError, OSError) as exc:
            log.warning("unit %s could not be borrowed: %s", ref.name, exc)
            self._settled(ref, None, str(exc))
        else:
            self._settled(ref, weights, None)

    def _fetched(self, ref: UnitRef) -> Weights:
        with writing_to(self._folder):
            self._folder.mkdir(mode=0o700, exist_ok=True)
        around, path = self._around, unit_path(self._folder, ref.sha256)
        disk = BlobDisk(self._folder / "pieces", lambda sha256: [path])
        download = Download(
            around.secure,
            self._job,
            disk,
            lambda: holders_of(around.registry.usable(), self._model_id, self._manifest),
            on_liar=around.on_liar,
            patience_s=PATIENCE_S,
        )
        download.run([Wanted(ref.sha256, ref.num_bytes, ref.num_bytes)])
        try:
            weights: Weights = np.array(load_unit(self._folder, ref).weights)  # not mapped: the file goes
        finally:
            path.unlink(missing_ok=True)
        self.fetched_bytes += ref.num_bytes
        return weights

    def _settled(self, ref: UnitRef, weights: Weights | None, trouble: str | None) -> None:
        with self._news:
            self.trouble = trouble
            if ref in self._asked:
                self._asked.remove(ref)
            if weights is None or self._job.stop.is_set():
                return
            self._here[ref] = weights
            while sum(held.num_bytes for held in self._here) > self._limit_bytes:
                self._here.popitem(last=False)


def remove_left_behind(models_dir: Path) -> None:
    """Removes what a killed node had borrowed; the caller must hold the data directory's lock."""
    for folder in models_dir.glob(f"{FOLDER_PREFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)
