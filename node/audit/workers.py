"""Workers of the audit: node processes on this machine, and what each of them received.

They listen on 127.0.0.1, have temporary data directories, and end with the process that started them: a worker leaves
when its stdin ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Self

from node.audit.tap import Record
from node.audit.tapped import LENGTH_BYTES
from node.errors import KekahydeError
from node.paths import DataDir
from node.store.stored import StoredModel
from node.swarm.credentials import ENVIRONMENT_KEY
from protocol import cbor
from protocol.errors import RemoteProtocolError
from protocol.identity import Identity, PeerId
from protocol.limits import SWARM_KEY_BYTES
from protocol.link.admission import SwarmKey
from protocol.multiaddr import Multiaddr, parse_multiaddr

READY_TIMEOUT_S = 60.0
MARK_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
MAX_NARRATION = 500
"""Last characters of what it said that an error quotes."""
MAX_RECORD_BYTES = 16 << 20


class WorkerError(KekahydeError):
    """A worker of the audit did not start, or ended."""


class Worker:
    """One worker process."""

    def __init__(self, name: str, folder: Path, model: StoredModel, environment: dict[str, str]) -> None:
        self.name = name
        self._folder = folder
        read_fd, write_fd = os.pipe()
        command = [sys.executable, "-P", "-m", "node.audit.tapped", str(folder), str(model.path.parent)]
        with (folder / "stderr.txt").open("w") as narration:
            self._process = subprocess.Popen(
                [*command, model.model_id, str(write_fd)],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=narration,
                pass_fds=[write_fd],
                start_new_session=True,  # Ctrl-C is for the audit, which then ends its workers
                text=True,
            )
        os.close(write_fd)
        self._cuts: queue.SimpleQueue[list[Record] | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, args=(os.fdopen(read_fd, "rb"),), daemon=True)
        self._reader.start()
        self.peer_id = PeerId("")
        self.address: Multiaddr

    def wait_ready(self) -> None:
        """Read the ready line; raises WorkerError with what it said instead."""
        assert self._process.stdout is not None
        timer = threading.Timer(READY_TIMEOUT_S, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise WorkerError(f"a worker did not start: {self._narration()}")
        ready = json.loads(line)
        self.peer_id, self.address = PeerId(ready["peer_id"]), parse_multiaddr(ready["addrs"][0])

    @property
    def identity(self) -> Identity:
        """Its key, to pair it."""
        return DataDir.open(self._folder).identity()

    def cut(self) -> list[Record]:
        """What it received since the last cut."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            records = self._cuts.get(timeout=MARK_TIMEOUT_S)
        except (OSError, ValueError, queue.Empty):  # its pipe is broken or closed
            records = None
        if records is None:
            raise WorkerError(f"worker {self.name} has ended: {self._narration()}")
        return records

    def stop(self) -> None:
        """Let it leave; it is killed if it does not."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                with contextlib.suppress(OSError):  # it has ended, and what was not written yet cannot be
                    pipe.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def _read(self, pipe: BinaryIO) -> None:
        """Collect records until the pipe ends; a mark hands over those before it."""
        records: list[Record] = []
        try:
            with pipe:
                while len(head := pipe.read(LENGTH_BYTES)) == LENGTH_BYTES:
                    size = min(int.from_bytes(head, "little"), MAX_RECORD_BYTES + 1)
                    plane, at_ns, frames = cbor.decode(pipe.read(size), MAX_RECORD_BYTES)
                    if plane == "mark":
                        self._cuts.put(records)
                        records = []
                    else:
                        records.append(Record(plane, at_ns, frames))
        except RemoteProtocolError:  # it was killed in the middle of a record
            pass
        finally:
            self._cuts.put(None)

    def _narration(self) -> str:
        try:
            said = (self._folder / "stderr.txt").read_text(errors="replace").strip()
        except FileNotFoundError:
            said = ""
        return said[-MAX_NARRATION:] or "it said nothing"


class Workers:
    """Some workers of one private swarm; a context manager that removes all that it made."""

    def __init__(self, count: int, model: StoredModel) -> None:
        self._count, self._model = count, model
        self.key = SwarmKey(secrets.token_bytes(SWARM_KEY_BYTES))
        self.folder = Path(tempfile.mkdtemp(prefix="kekahyde-audit-"))
        self.all: list[Worker] = []

    def __enter__(self) -> Self:
        environment = {**os.environ, ENVIRONMENT_KEY: self.key.secret.hex(), "PYTHONPATH": os.pathsep.join(_places())}
        try:
            for index in range(self._count):
                folder = self.folder / f"worker{index}"
                folder.mkdir(mode=0o700)
                self.all.append(Worker(f"{index}", folder, self._model, environment))
            for worker in self.all:
                worker.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        try:
            for worker in self.all:
                worker.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def cut(self) -> dict[PeerId, list[Record]]:
        """What each of them received since the last cut."""
        return {worker.peer_id: worker.cut() for worker in self.all}


def _places() -> Sequence[str]:
    """Where this process finds its modules, so that a worker runs the same program."""
    return [place for place in sys.path if place]
