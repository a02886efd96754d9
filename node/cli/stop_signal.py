"""Ends a serving program: on a signal, or when the process that started it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""SIGHUP means that the terminal was closed. A node started with `nohup` ignores it, and goes on ignoring it."""


class StopSignal:
    """Waits for a signal to stop, whichever thread the kernel delivers it to. Create it early, in the main thread.

    The kernel may choose any thread, and does so if the main thread was just resumed or has another signal to
    handle. A Python handler then runs only once the main thread executes bytecode, which it never does while it waits
    for a lock. So the main thread reads the descriptor that the C handler writes to: `signal.set_wakeup_fd`.
    """

    def __init__(self) -> None:
        self._woken, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in STOPPING:
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _leave_it_to_the_descriptor)

    def give(self) -> None:
        """End the wait, from any thread, as a signal would."""
        with contextlib.suppress(BlockingIOError):  # full: already woken
            self._wake.send(bytes([signal.SIGTERM]))

    def wait(self) -> None:
        """Return once a signal has come, even if it came before this call."""
        while self._woken.recv(1)[0] not in STOPPING:
            pass


def stop_when_stdin_ends() -> None:
    """Stop when stdin ends. The process that started this program holds the other end of stdin; it closes however
    that process ends."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="stdin", daemon=True).start()


def _leave_it_to_the_descriptor(*_: object) -> None:
    """Does nothing: a signal is written to the descriptor only if it has a handler."""
