"""What an attack costs: the life of the process, its resident memory, and how fast an honest client is beside it."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from scripts.attacks.target import Target
from scripts.harness.programs import environment, program
from scripts.harness.swarm import NodeProcess

ATTACKER = program("scripts.attacks.stranger")
SAMPLE_S = 0.05
MIB = 1 << 20


class MemoryWatch:
    """The most that a process had resident between `start` and `stop`, sampled; a context manager."""

    def __init__(self, node: NodeProcess) -> None:
        self._process = psutil.Process(node.process.pid)
        self.idle_bytes = self._process.memory_info().rss
        self.peak_bytes = self.idle_bytes
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._main, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def grown_mib(self) -> float:
        """The peak above what it had before, MiB."""
        return (self.peak_bytes - self.idle_bytes) / MIB

    def _main(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            try:
                self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss)
            except psutil.NoSuchProcess:
                return


@dataclass(frozen=True, slots=True)
class AttackRun:
    """An attack to be run as a process beside this one."""

    name: str
    swarm_key: str | None = None
    """64 hex digits: the attacker is a member."""

    @contextmanager
    def against(self, target: Target, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
        """The attack while the block runs; it ends by itself after `seconds`, or with the block."""
        command = [*ATTACKER, self.name, str(target), str(seconds)]
        environ = {key: value for key, value in environment().items() if key != "KEKAHYDE_SWARM_KEY"}
        if self.swarm_key is not None:
            command.append("--member")
            environ["KEKAHYDE_SWARM_KEY"] = self.swarm_key
        process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()

    def to_its_end(self, target: Target, seconds: float, limit_s: float) -> None:
        """The whole attack. Raises AttackerError where the program itself fails."""
        with self.against(target, seconds) as process:
            try:
                code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                return
        if code != 0:
            raise AttackerError(f"the attacker {self.name} failed itself: exit code {code}")


class AttackerError(Exception):
    """An attack that was none: the attacking program failed."""
