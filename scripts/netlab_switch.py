"""An Ethernet switch in user space: TAP devices joined by one thread that delays and loses frames.

It stands in for `tc netem` where the kernel has none. The kernels of both sides still speak their own TCP, UDP and
multicast over it; only the wire is ours. Loss is drawn from a seed, so that a run can be repeated.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import struct
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_BYTES = 65536
MAX_WAITING_FRAMES = 100_000
"""Frames on the wire at one time; more are lost, as in a full queue."""
IDLE_S = 0.2


def open_tap(name: str) -> int:
    """A new TAP device; the file it is written and read by."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return device


@dataclass(slots=True)
class SwitchCounts:
    """What crossed the switch."""

    forwarded: int = 0
    lost: int = 0
    cut: int = 0
    """Dropped because a partition was between sender and receiver."""
    num_bytes: int = 0


@dataclass(slots=True)
class Switch:
    """A learning switch over TAP devices; a thread of its own while it runs."""

    devices: Sequence[int]
    delay_s: float
    loss: float
    seed: int
    counts: SwitchCounts = field(default_factory=SwitchCounts)
    _groups: list[int] = field(default_factory=list)
    _learned: dict[bytes, int] = field(default_factory=dict)
    _waiting: deque[tuple[float, int, bytes]] = field(default_factory=deque)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self.heal()
        self._thread = threading.Thread(target=self._run, name="switch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        for device in self.devices:
            os.close(device)

    def partition(self, away: Sequence[int]) -> None:
        """Cut the ports of these indices off from all others, but not from each other."""
        self._groups = [int(index in away) for index in range(len(self.devices))]

    def heal(self) -> None:
        self._groups = [0] * len(self.devices)

    def _run(self) -> None:
        poll, dice = select.epoll(), random.Random(self.seed)
        ports = {device: index for index, device in enumerate(self.devices)}
        for device in self.devices:
            poll.register(device, select.EPOLLIN)
        with poll:
            while not self._stopping.is_set():
                due_s = self._waiting[0][0] - time.monotonic() if self._waiting else IDLE_S
                for device, _ in poll.poll(max(0.0, min(due_s, IDLE_S))):
                    self._read(ports[device], dice)
                self._deliver()

    def _read(self, port: int, dice: random.Random) -> None:
        for _ in range(64):
            try:
                frame = os.read(self.devices[port], FRAME_BYTES)
            except OSError:  # nothing more to read, or the interface is down
                return
            self._learned[frame[6:12]] = port
            if dice.random() < self.loss:
                self.counts.lost += 1
                continue
            known = None if frame[0] & 1 else self._learned.get(frame[:6])
            targets = range(len(self.devices)) if known is None else (known,)
            self._forward(frame, port, targets)

    def _forward(self, frame: bytes, port: int, targets: Sequence[int]) -> None:
        at = time.monotonic() + self.delay_s
        for target in targets:
            if target == port:
                continue
            if self._groups[target] != self._groups[port]:
                self.counts.cut += 1
            elif len(self._waiting) >= MAX_WAITING_FRAMES:
                self.counts.lost += 1
            else:
                self._waiting.append((at, target, frame))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, target, frame = self._waiting.popleft()
            with contextlib.suppress(OSError):  # an interface that is down, or its queue is full: the frame is lost
                os.write(self.devices[target], frame)
                self.counts.forwarded += 1
                self.counts.num_bytes += len(frame)
