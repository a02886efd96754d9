"""A program in a pseudo-terminal of its own: keys go in, what it draws is counted and thrown away."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
from collections.abc import Mapping, Sequence
from typing import Self

import psutil

STOP_TIMEOUT_S = 20.0
KEYS = {
    "enter": b"\r",
    "escape": b"\x1b",
    "f2": b"\x1bOQ",
    "f3": b"\x1bOR",
    "f5": b"\x1b[15~",
    "pageup": b"\x1b[5~",
    "pagedown": b"\x1b[6~",
    "ctrl+home": b"\x1b[1;5H",
    "ctrl+end": b"\x1b[1;5F",
    "ctrl+q": b"\x11",
}


class PtyProgram:
    """One program; a context manager that ends it."""

    def __init__(self, command: Sequence[str], size: tuple[int, int], env: Mapping[str, str] | None = None) -> None:
        self.num_bytes = 0
        """What it has drawn so far."""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        environment = {**(env or os.environ), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(STOP_TIMEOUT_S)
        os.close(self._master)

    def _drain(self) -> None:
        while True:
            try:
                self.num_bytes += len(os.read(self._master, 1 << 16))
            except OSError:  # the other end is closed
                return

    def press(self, *names: str) -> None:
        for name in names:
            os.write(self._master, KEYS[name])

    def cpu_s(self) -> float:
        """Processor time of the program and of what it started."""
        program = psutil.Process(self.process.pid)
        times = [process.cpu_times() for process in (program, *program.children(recursive=True))]
        return sum(time.user + time.system for time in times)
