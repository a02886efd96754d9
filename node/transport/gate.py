"""The gate in front of this node's ROUTERs: the TCP ports are the gate's, and libzmq never meets a stranger.

libzmq bounds neither the connections of a socket nor what they make it hold, and a process that it aborts is gone. So
the ROUTERs listen on Unix sockets in a folder of this process. Whoever dials is first held to `protocol.link.door`; a
connection that a proof lets in passes its CURVE handshake byte by counted byte; after that the pump connects both.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import selectors
import shutil
import socket
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import zmq
from msgspec import Struct, field

from node.errors import ConfigError, TransportError
from node.process.descriptors import can_open
from node.process.endurance import Endurance, GivenUpError
from node.transport.admissions import Admissions
from node.transport.callers import Callers, Routes
from node.transport.log_limit import LogLimit
from node.transport.pump import new_pump
from node.transport.stranger import Entry, House, Stranger, StrangerEnded
from protocol.errors import RemoteProtocolError
from protocol.identity import Identity, curve_public_key_of
from protocol.link.admission import SwarmKey
from protocol.link.door import DoorStatus, Doorway, door_box
from protocol.multiaddr import Multiaddr

log = logging.getLogger(__name__)

STRANGER_LIMIT_S = 3.0
"""Most time that a knock or a handshake may take."""
MAX_STRANGERS = 128
"""Most strangers at one time. One more takes the place of the oldest, or of its own host's oldest where that host has
half of all."""
MAX_STRANGERS_A_HOST = 64
STRANGERS_SHARE = 0.1
"""Of this thread's time, what strangers may use in the long run; the rest of the time nobody new is accepted."""
STRANGERS_BURST_S = 0.1
"""Time that strangers may use before that limit counts: many members may come at once."""
NO_DESCRIPTOR_PAUSE_S = 0.5
BACKLOG = 512
MAX_CONNECTIONS = 2048
"""Most connections of members, on all ports."""
MAX_CONNECTIONS_A_KEY = 64
MAX_UNREAD_BYTES = 96 << 20
"""Of one connection, what the ROUTER may hold that was not read: nobody honest has more than 64 MiB of requests
waiting, and a message of endless frames is never read."""
KEEPALIVE_IDLE_S = 10
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 3
UNSENT_LIMIT_MS = 30000
"""The system ends a connection whose other side acknowledges nothing for this long."""
NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
SPARE_DESCRIPTORS = 16
"""A member is let in only while so many more could be opened: other threads may need some meanwhile."""
CLOSING_S = 0.2
"""When the gate closes, the last messages have this long to leave."""


class _Port(Struct):
    """One TCP port and the ROUTER behind it."""

    plane: str
    listening: socket.socket
    path: Path
    watched: bool = False


class _Allowance(Struct):
    """Time that strangers may use, as a bucket that fills while nothing happens."""

    left_s: float = STRANGERS_BURST_S
    at: float = field(default_factory=time.monotonic)

    def spent(self, used_s: float, now: float) -> None:
        self.left_s = min(STRANGERS_BURST_S, self.left_s + STRANGERS_SHARE * (now - self.at)) - used_s
        self.at = now

    def pause_s(self) -> float:
        """How long no new connection is accepted."""
        return max(0.0, -self.left_s / STRANGERS_SHARE)


class Gate:
    """Opens ports, judges strangers, connects members to ROUTERs.

    Args:
        is_banned: asked in the gate's thread, by CURVE key.
    """

    def __init__(self, identity: Identity, swarm: SwarmKey | None, is_banned: Callable[[bytes], bool]) -> None:
        self._doorway = Doorway(door_box(swarm), identity.public_key)
        self._is_banned = is_banned
        self._admissions = Admissions()
        self._ports: dict[str, _Port] = {}
        self._strangers: OrderedDict[Stranger, _Port] = OrderedDict()
        self.callers = Callers()
        self._numbers = itertools.count(1)
        self._allowance = _Allowance()
        self._accept_at = 0.0
        self._complaints = LogLimit(log)
        self._stop_at: float | None = None
        """The time at which the gate stops waiting; None while the node runs."""
        self._thread: threading.Thread | None = None
        self.on_end: Callable[[Exception], None] = lambda exc: None
        """Called when the gate has failed so often that it was given up."""

    # --- for the owner

    def start(self) -> None:
        """Begin to watch ports, those to come included; once."""
        self._folder = Path(tempfile.mkdtemp(prefix="kekahyde-"))
        self._selector = selectors.DefaultSelector()
        self._pump = new_pump(MAX_UNREAD_BYTES)
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._selector.register(self._pump.news_fd, selectors.EVENT_READ)
        self._pump.start()
        self._thread.start()

    def stop(self) -> None:
        """Close every port and connection, after the ROUTERs were closed, so that what they said last has left; a
        second call does nothing."""
        if self._thread is None:
            return
        self._stop_at = time.monotonic() + CLOSING_S
        self._wake.send(b"\0")
        self._thread.join()
        self._thread = None
        self._pump.stop()
        for stranger in self._strangers:
            stranger.close()
        for port in self._ports.values():
            port.listening.close()
        self._selector.close()
        self._wake.close()
        self._woken.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def bind(self, plane: str, router: zmq.Socket[bytes], listen: Multiaddr) -> Multiaddr:
        """Let a ROUTER be dialled at a port; the address really bound. Raises ConfigError with the next step."""
        listening = _listening_socket(listen)
        port = _Port(plane, listening, self._folder / plane)
        router.bind(f"ipc://{port.path}")
        self._ports[plane] = port
        self._wake.send(b"\0")
        return listen.with_port(listening.getsockname()[1])

    # --- for ZAP and whoever reads a ROUTER, from any thread

    def admits(self, curve_key: bytes) -> bool:
        """Whether a key's owner gave a proof a moment ago and is not banned."""
        return self._admissions.admits(curve_key, time.monotonic()) and not self._is_banned(curve_key)

    def routes(self) -> Routes:
        """For whoever reads a ROUTER."""
        return Routes(self.callers, lambda caller, num_bytes: self._pump.read(caller.pair_id, num_bytes))

    def close(self, curve_key: bytes) -> None:
        """End every connection that a key's proof let in."""
        for caller in self.callers.of_key(curve_key):
            self._pump.close(caller.pair_id)

    def refuse(self, curve_key: bytes) -> None:
        """End every connection of a key, and let it open none for a while: what it sent was of no use."""
        self._admissions.refuse(curve_key, time.monotonic())
        self.close(curve_key)

    # --- the thread

    def _run(self) -> None:
        endurance = Endurance("the gate")
        try:
            while not self._is_over(now := time.monotonic()):
                try:
                    self._turn(now)
                except Exception as exc:
                    time.sleep(endurance.failed(exc))
        except GivenUpError as exc:
            self.on_end(exc)

    def _turn(self, now: float) -> None:
        self._expire(now)
        self._watch_ports(accepting=now >= self._accept_at and self._stop_at is None)
        for key, _events in self._selector.select(self._timeout_s(now)):
            self._handle(key)
        for pair_id in self._pump.ended():
            self.callers.remove(pair_id)

    def _is_over(self, now: float) -> bool:
        """What is left when the node ends: each pair whose ROUTER has hung up, once all it said was passed on."""
        return self._stop_at is not None and (now >= self._stop_at or not len(self.callers))

    def _timeout_s(self, now: float) -> float | None:
        deadlines = [self._accept_at] if now < self._accept_at else []
        deadlines += [next(iter(self._strangers)).deadline] if self._strangers else []
        deadlines += [] if self._stop_at is None else [self._stop_at]
        return max(0.0, min(deadlines) - now) if deadlines else None

    def _handle(self, key: selectors.SelectorKey) -> None:
        if key.fileobj is self._woken:
            self._woken.recv(64)
        elif key.fileobj == self._pump.news_fd:
            os.eventfd_read(self._pump.news_fd)
        else:
            started = time.thread_time()
            if isinstance(key.data, _Port):
                self._accept(key.data)
            elif key.data in self._strangers:  # another event of this turn may have ended it
                self._hear(key.data, key.fileobj is not key.data.outer)
            now = time.monotonic()
            self._allowance.spent(time.thread_time() - started, now)
            self._accept_at = max(self._accept_at, now + self._allowance.pause_s())

    def _watch_ports(self, accepting: bool) -> None:
        for port in list(self._ports.values()):
            if accepting and not port.watched:
                self._selector.register(port.listening, selectors.EVENT_READ, port)
            elif port.watched and not accepting:
                self._selector.unregister(port.listening)
            port.watched = accepting

    def _accept(self, port: _Port) -> None:
        try:
            outer, address = port.listening.accept()
        except OSError as exc:
            if exc.errno in NO_ROOM:
                self._complaints.warning("a connection was not accepted: %s", exc.strerror)
                self._accept_at = time.monotonic() + NO_DESCRIPTOR_PAUSE_S
            return
        outer.setblocking(False)
        keep_alive(outer)
        host = zmq_host(str(address[0]))
        self._make_room(host)
        stranger = Stranger(outer, host, time.monotonic() + STRANGER_LIMIT_S)
        self._strangers[stranger] = port
        self._selector.register(outer, selectors.EVENT_READ, stranger)

    def _make_room(self, host: str) -> None:
        of_host = [stranger for stranger in self._strangers if stranger.host == host]
        if len(of_host) >= MAX_STRANGERS_A_HOST:
            self._drop(of_host[0])
        elif len(self._strangers) >= MAX_STRANGERS:
            self._drop(next(iter(self._strangers)))

    def _expire(self, now: float) -> None:
        """Drop strangers whose time is over; the oldest come first."""
        while self._strangers and next(iter(self._strangers)).deadline <= now:
            self._drop(next(iter(self._strangers)))

    def _hear(self, stranger: Stranger, from_inside: bool) -> None:
        port = self._strangers[stranger]
        judge = partial(self._judge, port.plane, stranger.host)
        try:
            if not from_inside:
                stranger.heard(House(self._doorway, judge, partial(self._enter, port, stranger)))
            elif stranger.answered():
                self._let_in(stranger)
        except BlockingIOError:
            pass
        except StrangerEnded as ended:
            if ended.args:
                self._complaints.warning("a stranger at %s was refused: %s", stranger.host, ended)
            self._drop(stranger)
        except OSError as exc:  # it has gone, or there is no descriptor left
            if exc.errno in NO_ROOM:
                self._complaints.warning("a connection was not accepted: %s", exc.strerror)
                self._accept_at = time.monotonic() + NO_DESCRIPTOR_PAUSE_S
            self._drop(stranger)
        except Exception:  # whatever one stranger brings about ends that one alone
            self._complaints.warning("a stranger at %s was dropped", stranger.host, exc_info=True)
            self._drop(stranger)

    def _judge(self, plane: str, host: str, dialler: bytes) -> DoorStatus:
        """Whether a member whose key is proven may connect now."""
        try:
            curve_key = curve_public_key_of(dialler)
        except RemoteProtocolError:
            return DoorStatus.UNWANTED
        if self._is_banned(curve_key):
            return DoorStatus.UNWANTED
        full = len(self.callers) >= MAX_CONNECTIONS or len(self.callers.of_key(curve_key)) >= MAX_CONNECTIONS_A_KEY
        if full or not self._admissions.grant(plane, host, curve_key, time.monotonic()):
            return DoorStatus.BUSY
        return DoorStatus.OPEN

    def _enter(self, port: _Port, stranger: Stranger) -> Entry | None:
        """The way to the ROUTER, where a proof lets this connection in."""
        if not can_open(SPARE_DESCRIPTORS):  # libzmq 4.3.5 aborts the process if it cannot accept (ipc_listener.cpp)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        curve_key = self._admissions.enter(port.plane, stranger.host, time.monotonic())
        if curve_key is None:
            return None
        number = next(self._numbers)
        name = self._folder / str(number)
        inner = socket.socket(socket.AF_UNIX)
        try:
            inner.bind(str(name))
            inner.setblocking(False)
            inner.connect(str(port.path))
            self._selector.register(inner, selectors.EVENT_READ, stranger)
        except OSError:
            inner.close()
            raise
        finally:
            name.unlink(missing_ok=True)
        return Entry(inner, number, curve_key)

    def _let_in(self, stranger: Stranger) -> None:
        """The ROUTER knows who it is: from now on the pump passes everything on."""
        entry, outer = stranger.entry, stranger.outer
        assert entry is not None, "the ROUTER answered"
        self._forget(stranger)
        with contextlib.suppress(TransportError):  # both sockets are closed then
            self.callers.add(
                entry.number, stranger.host, entry.curve_key, lambda: self._pump.add(outer, entry.socket)
            )

    def _drop(self, stranger: Stranger) -> None:
        self._forget(stranger)
        stranger.close()

    def _forget(self, stranger: Stranger) -> None:
        del self._strangers[stranger]
        self._selector.unregister(stranger.outer)
        if stranger.entry is not None:
            self._selector.unregister(stranger.entry.socket)


def _listening_socket(listen: Multiaddr) -> socket.socket:
    """A socket that listens, non-blocking. Raises ConfigError."""
    family = socket.AF_INET6 if listen.protocol in ("ip6", "dns6") else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind((listen.host, listen.port))
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as exc:
        listening.close()
        reason = "the port is in use" if exc.errno == errno.EADDRINUSE else exc.strerror or str(exc)
        raise ConfigError(
            f"cannot listen on {listen}: {reason}; choose another with --listen (port 0 takes any free one)"
        ) from exc
    return listening


def keep_alive(outer: socket.socket) -> None:
    """Have the system notice a peer that has vanished, and send small frames at once."""
    outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    outer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)
    outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNSENT_LIMIT_MS)


def zmq_host(host: str) -> str:
    """ZeroMQ's form of a host: IPv6 in brackets, IPv4 without its mapping prefix."""
    plain = host.removeprefix("::ffff:")
    return f"[{plain}]" if ":" in plain else plain
