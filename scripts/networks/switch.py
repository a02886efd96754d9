"""An Ethernet switch in user space: TAP devices joined by one process that delays and loses frames.

It stands in for `tc netem` where the kernel has none. The kernels of both sides still speak their own TCP, UDP and
multicast over it; only the wire is ours. Loss is drawn from a seed, so that a run can be repeated.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import random
import select
import struct
import time
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_BYTES = 65536
MAX_WAITING_FRAMES = 100_000
"""Frames on the wire at one time; more are lost, as in a full queue."""
IDLE_S = 0.2
FRAMES_AT_ONCE = 64
"""Frames that are read of one port before the others have their turn."""
PRIORITY = -10
"""A wire does not wait for a processor."""
STOP = None


def open_tap(name: str) -> int:
    """A new TAP device; the file it is written and read by."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return device


class Switch:
    """A learning switch over TAP devices, in a process of its own while it runs."""

    def __init__(self, devices: Sequence[int], delay_s: float, loss: float, seed: int) -> None:
        self._devices = list(devices)
        self._wire = _Wire(self._devices, delay_s, loss, random.Random(seed))
        self._process: BaseProcess | None = None
        self._orders: Connection | None = None

    def start(self) -> None:
        context = multiprocessing.get_context("fork")  # the devices are open files
        self._orders, orders = context.Pipe()
        self._process = context.Process(target=self._wire.run, args=(orders,), name="switch", daemon=True)
        self._process.start()

    def stop(self) -> None:
        if self._orders is not None and self._process is not None:
            self._orders.send(STOP)
            self._process.join()
        for device in self._devices:
            os.close(device)

    def partition(self, away: Sequence[int]) -> None:
        """Cut the ports of these indices off from all others, but not from each other; none: it is one again."""
        assert self._orders is not None, "started"
        self._orders.send([int(index in away) for index in range(len(self._devices))])
        self._orders.recv()  # it holds from now on


class _Wire:
    """The switch's own process."""

    def __init__(self, devices: list[int], delay_s: float, loss: float, dice: random.Random) -> None:
        self._devices = devices
        self._delay_s = delay_s
        self._loss = loss
        self._dice = dice
        self._groups = [0] * len(devices)
        self._learned: dict[bytes, int] = {}
        self._waiting: deque[tuple[float, int, bytes]] = deque()

    def run(self, orders: Connection) -> None:
        with contextlib.suppress(PermissionError):
            os.nice(PRIORITY)
        ports = {device: index for index, device in enumerate(self._devices)}
        with select.epoll() as poll:
            for file in (*self._devices, orders.fileno()):
                poll.register(file, select.EPOLLIN)
            while True:
                due_s = self._waiting[0][0] - time.monotonic() if self._waiting else IDLE_S
                for file, _ in poll.poll(max(0.0, min(due_s, IDLE_S))):
                    if file in ports:
                        self._read(ports[file])
                    elif not self._obey(orders):
                        return
                self._deliver()

    def _obey(self, orders: Connection) -> bool:
        """Take one order; False where it was to stop, or nobody is there to give any."""
        try:
            order = orders.recv()
        except EOFError:
            return False
        if order is not STOP:
            self._groups = order
            orders.send(True)
        return order is not STOP

    def _read(self, port: int) -> None:
        for _ in range(FRAMES_AT_ONCE):
            try:
                frame = os.read(self._devices[port], FRAME_BYTES)
            except OSError:  # nothing more to read, or the interface is down
                return
            self._learned[frame[6:12]] = port
            if self._dice.random() < self._loss:
                continue
            known = None if frame[0] & 1 else self._learned.get(frame[:6])
            at = time.monotonic() + self._delay_s
            for target in range(len(self._devices)) if known is None else (known,):
                is_cut = target == port or self._groups[target] != self._groups[port]
                if not is_cut and len(self._waiting) < MAX_WAITING_FRAMES:
                    self._waiting.append((at, target, frame))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, target, frame = self._waiting.popleft()
            with contextlib.suppress(OSError):  # an interface that is down, or its queue is full: the frame is lost
                os.write(self._devices[target], frame)
