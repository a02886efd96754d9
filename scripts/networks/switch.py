"""An Ethernet switch in user space: TAP devices joined by one process that delays and loses frames.

It stands in for `tc netem` where the kernel has none. The kernels of both sides still speak their own TCP, UDP and
multicast over it; only the wire is ours. Loss is drawn from a seed, so that a run can be repeated.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import itertools
import multiprocessing
import os
import random
import select
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_BYTES = 65536
MAX_WAITING_FRAMES = 100_000
"""Frames on the wire at one time; more are lost, as in a full queue."""
LONGEST_QUEUE_S = 0.5
"""A device that sends more than the wire takes loses what would wait longer."""
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


@dataclass(frozen=True, slots=True)
class Wire:
    """What happens to frames on their way."""

    delay_s: float = 0.0
    loss: float = 0.0
    """Share of frames that are lost."""
    jitter_s: float = 0.0
    """Each frame takes up to so much longer, so that frames overtake each other."""
    bytes_per_s: float = 0.0
    """What each device can send, and what it can take; 0: as much as it likes."""


CALM = Wire(delay_s=0.001)


class Switch:
    """A learning switch over TAP devices, in a process of its own while it runs."""

    def __init__(self, devices: Sequence[int], wire: Wire, seed: int) -> None:
        self._devices = list(devices)
        self._wire = _Wires(self._devices, wire, random.Random(seed))
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
        self._order([int(index in away) for index in range(len(self._devices))])

    def wire(self, wire: Wire) -> None:
        """From now on, frames fare so."""
        self._order(wire)

    def _order(self, order: Wire | list[int]) -> None:
        assert self._orders is not None, "started"
        self._orders.send(order)
        self._orders.recv()  # it holds from now on


class _Wires:
    """The switch's own process."""

    def __init__(self, devices: list[int], wire: Wire, dice: random.Random) -> None:
        self._devices = devices
        self._wire = wire
        self._dice = dice
        self._free_at = [0.0] * len(devices)
        """When each device has sent what it sent so far."""
        self._taken_at = [0.0] * len(devices)
        """When each device has got what is on its way to it."""
        self._numbers = itertools.count()
        self._groups = [0] * len(devices)
        self._learned: dict[bytes, int] = {}
        self._waiting: list[tuple[float, int, int, bytes, bool]] = []
        """A heap: when, a number, where to, the frame, and whether the device takes it then: else it comes to the
        end of the wire then, where those of several senders may wait for each other."""

    def run(self, orders: Connection) -> None:
        with contextlib.suppress(PermissionError):
            os.nice(PRIORITY)
        ports = {device: index for index, device in enumerate(self._devices)}
        files = [*self._devices, orders.fileno()]
        while True:
            due_s = self._waiting[0][0] - time.monotonic() if self._waiting else IDLE_S
            # Not epoll: it waits in whole milliseconds, which is more than the delay of a local network.
            for file in select.select(files, (), (), max(0.0, min(due_s, IDLE_S)))[0]:
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
        if order is STOP:
            return False
        if isinstance(order, Wire):
            self._wire = order
        else:
            self._groups = order
        orders.send(True)
        return True

    def _read(self, port: int) -> None:
        for _ in range(FRAMES_AT_ONCE):
            try:
                frame = os.read(self._devices[port], FRAME_BYTES)
            except OSError:  # nothing more to read, or the interface is down
                return
            self._learned[frame[6:12]] = port
            if self._dice.random() < self._wire.loss:
                continue
            known = None if frame[0] & 1 else self._learned.get(frame[:6])
            at = self._arrives_at(port, len(frame))
            if at is None:
                continue
            for target in range(len(self._devices)) if known is None else (known,):
                is_cut = target == port or self._groups[target] != self._groups[port]
                if not is_cut and len(self._waiting) < MAX_WAITING_FRAMES:
                    is_taken = not self._wire.bytes_per_s
                    heapq.heappush(self._waiting, (at, next(self._numbers), target, frame, is_taken))

    def _arrives_at(self, port: int, num_bytes: int) -> float | None:
        """When a frame that a device sends now arrives; None where its queue is full."""
        sent_at = time.monotonic()
        if self._wire.bytes_per_s:
            begins_at = max(sent_at, self._free_at[port])
            if begins_at > sent_at + LONGEST_QUEUE_S:
                return None
            sent_at = self._free_at[port] = begins_at + num_bytes / self._wire.bytes_per_s
        return sent_at + self._wire.delay_s + self._dice.uniform(0, self._wire.jitter_s)

    def _queue_up(self, at: float, target: int, frame: bytes) -> None:
        """A frame is at the end of the wire: two senders share what one device can take."""
        takes_at = max(at, self._taken_at[target])
        if takes_at > at + LONGEST_QUEUE_S:
            return
        self._taken_at[target] = takes_at + len(frame) / max(self._wire.bytes_per_s, 1.0)
        heapq.heappush(self._waiting, (takes_at, next(self._numbers), target, frame, True))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            at, _, target, frame, is_taken = heapq.heappop(self._waiting)
            if not is_taken:
                self._queue_up(at, target, frame)
                continue
            with contextlib.suppress(OSError):  # an interface that is down, or its queue is full: the frame is lost
                os.write(self._devices[target], frame)
