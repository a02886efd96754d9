"""What ends a program that serves: a signal, or the end of whoever started it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""SIGHUP: the terminal was closed. Whoever starts a node with `nohup` ignores it, and that stays so."""


class StopSignal:
    """A signal to stop, whichever thread of this process the kernel gives it to. Made in the main thread, early.

    The kernel may choose any thread, and does where the main one was only just continued or has another signal to
    take. A Python handler then waits for the main thread to execute something, which one that waits for a lock never
    does. So that thread reads what the C handler writes: `signal.set_wakeup_fd`.
    """

    def __init__(self) -> None:
        self._woken, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in STOPPING:
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _leave_it_to_the_descriptor)

    def give(self) -> None:
        """End the wait, from any thread, as a signal does."""
        with contextlib.suppress(BlockingIOError):  # full: it is woken already
            self._wake.send(bytes([signal.SIGTERM]))

    def wait(self) -> None:
        """Return once one has come, also where it came before."""
        while self._woken.recv(1)[0] not in STOPPING:
            pass


def stop_when_stdin_ends() -> None:
    """Whoever started this program holds the other end of its stdin: when that one ends, however, so does this."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="stdin", daemon=True).start()


def _leave_it_to_the_descriptor(*_: object) -> None:
    """Only a signal that has a handler is written to the descriptor."""
