"""Reads pieces and makes outlines for the data plane, in a thread of its own: a slow disk must not delay a chunk."""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections.abc import Callable

from msgspec import Struct

from node.serving.hosting import BlobPlace
from protocol.limits import PIECE_BYTES
from protocol.transfer.outline import Outline

log = logging.getLogger(__name__)

FindBlob = Callable[[bytes], BlobPlace | None]


class ReadTask(Struct, frozen=True):
    """An outline that is to be made, or (with an index) a piece that is to be read. `tag` comes back with it."""

    sha256: bytes
    index: int | None
    tag: object


class Fetched(Struct, frozen=True):
    """The result of a task: an outline, a piece's bytes, or None where the blob cannot be served."""

    task: ReadTask
    found: Outline | bytes | None


class DiskReader:
    """Does one task after the other; `done` is called in its thread."""

    def __init__(self, find_blob: FindBlob, done: Callable[[Fetched], None]) -> None:
        self.find_blob = find_blob
        self._done = done
        self._tasks: queue.SimpleQueue[ReadTask | None] = queue.SimpleQueue()
        self._outlines: dict[bytes, Outline | None] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._main, name="disk reader", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the task at hand."""
        if self._thread is not None:
            self._tasks.put(None)
            self._thread.join(1.0)

    def send(self, task: ReadTask) -> None:
        """Do this task after those before it."""
        self._tasks.put(task)

    def _main(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                found = self.outline(task.sha256) if task.index is None else self.read(task)
            except OSError as exc:
                log.warning("blob %s cannot be read: %s", task.sha256.hex()[:16], exc.strerror)
                found = None
            except Exception:  # whoever comes next must not wait for ever
                log.exception("blob %s cannot be read", task.sha256.hex()[:16])
                found = None
            self._done(Fetched(task, found))

    def outline(self, sha256: bytes) -> Outline | None:
        """The outline of a blob, made once. A file that has changed since it was imported is not offered."""
        if sha256 not in self._outlines:
            place = self.find_blob(sha256)
            if place is None:
                return None
            self._outlines[sha256] = _outline_of(sha256, place)
        return self._outlines[sha256]

    def read(self, task: ReadTask) -> bytes | None:
        """The piece that a task is for."""
        outline, place = self.outline(task.sha256), self.find_blob(task.sha256)
        if outline is None or place is None or task.index is None or task.index >= len(outline.pieces):
            return None
        with place.path.open("rb") as file:
            file.seek(task.index * PIECE_BYTES)
            piece = file.read(outline.piece_bytes(task.index))
        return piece if len(piece) == outline.piece_bytes(task.index) else None


def _outline_of(sha256: bytes, place: BlobPlace) -> Outline | None:
    whole, pieces = hashlib.sha256(), []
    with place.path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            whole.update(piece)
            pieces.append(hashlib.sha256(piece).digest())
    if whole.digest() != sha256 or not pieces:
        log.error("%s is damaged: it is not given to others", place.path)
        return None
    return Outline(place.num_bytes, tuple(pieces))
