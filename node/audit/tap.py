"""What a worker received, read as messages: seeds of pads, shares, and whether anything else came.

A message that is not of an allowed form is a finding by itself: a peer must get nothing but what is named here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np
from msgspec import Struct, field

from protocol.codec import decode_message
from protocol.discreet import Discreet
from protocol.errors import RemoteProtocolError
from protocol.limits import MAX_CONTROL_FRAME_BYTES, ROW_BUCKETS
from protocol.linear.field import Elements, P
from protocol.linear.messages import ChunkBinding, Linear, Role
from protocol.link.hello import Hello
from protocol.link.messages import Attach, GoAway, Pong
from protocol.message import Cancel, Ping


class Record(Discreet, Struct, frozen=True):
    """One message as it came."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("frames",)
    plane: str
    at_ns: int
    """By the clock that all processes of a machine share."""
    frames: list[bytes]


class TappedShare(Discreet, Struct, frozen=True):
    """The shares of one chunk."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("rows",)
    at_ns: int
    binding: ChunkBinding
    rows: Elements
    """[rows, K]"""


class TappedSeed(Discreet, Struct, frozen=True):
    """The seed of some pads."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("seed",)
    at_ns: int
    binding: ChunkBinding
    seed: bytes


class Tapped(Struct):
    """Everything that one peer got."""

    shares: list[TappedShare] = field(default_factory=list)
    seeds: list[TappedSeed] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """What is not of an allowed form."""
    num_bytes: int = 0

    @property
    def bindings(self) -> list[ChunkBinding]:
        """Of all requests, shares first."""
        return [share.binding for share in self.shares] + [seed.binding for seed in self.seeds]

    @property
    def sessions(self) -> set[bytes]:
        return {binding.session for binding in self.bindings}


def read_tap(records: Iterable[Record], secrets: Sequence[bytes] = ()) -> Tapped:
    """The messages of one peer.

    Args:
        secrets: bytes that must not occur in any frame, such as the prompts.
    """
    tapped = Tapped()
    for record in records:
        tapped.num_bytes += sum(map(len, record.frames))
        if any(secret in frame for frame in record.frames for secret in secrets):
            tapped.wrong.append("the prompt itself")
        try:
            message = decode_message(record.frames, MAX_CONTROL_FRAME_BYTES).message
        except RemoteProtocolError:
            tapped.wrong.append("a message that cannot be read")
            continue
        match message:
            case Linear() if record.plane == "data":
                _note_linear(tapped, record.at_ns, message)
            case Hello() | Ping() | Pong() | GoAway() if record.plane == "control":
                pass
            case Attach() | Cancel() | Ping() if record.plane == "data":
                pass
            case _:
                tapped.wrong.append(f"a {type(message).__name__} on the {record.plane} plane")
    _check_order(tapped)
    return tapped


def _note_linear(tapped: Tapped, at_ns: int, message: Linear) -> None:
    binding = message.binding
    if binding.num_rows not in ROW_BUCKETS:
        tapped.wrong.append(f"a chunk of {binding.num_rows} rows")
    if message.seed is not None:
        tapped.seeds.append(TappedSeed(at_ns, binding, message.seed))
    if message.rows is not None:
        if not (message.rows < P).all():
            tapped.wrong.append("a share with an element that is not canonical")
        tapped.shares.append(TappedShare(at_ns, binding, np.array(message.rows)))


def _check_order(tapped: Tapped) -> None:
    """Within each session: one role, and nonces that increase. No seed comes twice in any."""
    for session in tapped.sessions:
        shares = [share.binding.nonce for share in tapped.shares if share.binding.session == session]
        seeds = [seed.binding.nonce for seed in tapped.seeds if seed.binding.session == session]
        if shares and seeds:
            tapped.wrong.append("seeds and shares at one peer")
        if any(later <= earlier for nonces in (shares, seeds) for earlier, later in itertools.pairwise(nonces)):
            tapped.wrong.append("nonces that do not increase")
    seeds_seen = [message.seed for message in tapped.seeds]
    if len(set(seeds_seen)) != len(seeds_seen):
        tapped.wrong.append("a seed twice")
    if any(binding.role is Role.PLAIN for binding in tapped.bindings):
        tapped.wrong.append("a plain row")


def shared_sessions(taps: Sequence[Tapped]) -> int:
    """How many session ids two peers have seen: by them they could match their records."""
    seen = [session for tapped in taps for session in tapped.sessions]
    return len(seen) - len(set(seen))
