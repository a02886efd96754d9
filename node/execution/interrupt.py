"""A flag that any thread can set to end the pass of the computing thread, wherever that thread waits."""

from __future__ import annotations

import contextlib
import os
import threading


class PassCancelledError(Exception):
    """The current pass was cancelled, with all of its chunks."""


class Interrupt:
    """A flag that any thread may set, and that the session's thread checks and polls."""

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable while the flag is set; it wakes the thread that polls for messages of peers."""

    def request(self) -> None:
        """End the current pass, or the next one."""
        self._wanted.set()
        os.eventfd_write(self.fd, 1)

    def nudge(self) -> None:
        """Wake the polling thread without ending a pass; `clear` resets this."""
        os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        """Reset the flag: passes may go on."""
        self._wanted.clear()
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def check(self) -> None:
        """Raises PassCancelledError if the flag is set."""
        if self._wanted.is_set():
            raise PassCancelledError

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)
