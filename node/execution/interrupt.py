"""A flag that any thread raises and that ends the pass of the thread which computes, wherever it waits."""

from __future__ import annotations

import contextlib
import os
import threading


class PassCancelledError(Exception):
    """The pass under way was cancelled, with every chunk of it."""


class Interrupt:
    """Raised from any thread; asked and polled by the session's."""

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable while the flag is raised: wakes whoever polls for news of peers."""

    def request(self) -> None:
        """End the pass that is under way, or the next one."""
        self._wanted.set()
        os.eventfd_write(self.fd, 1)

    def nudge(self) -> None:
        """Wake whoever polls, without an end to anything; `clear` takes it back."""
        os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        """Passes may go on."""
        self._wanted.clear()
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def check(self) -> None:
        """Raises PassCancelledError where the flag is raised."""
        if self._wanted.is_set():
            raise PassCancelledError

    def close(self) -> None:
        """Nobody uses it any more."""
        os.close(self.fd)
