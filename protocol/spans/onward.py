"""Rows that go from device to device: where a result goes on to, and the seal by which the next device knows that the
client wants it there.

A client and each of its devices have a key (SPAN_OPEN). The client seals what each device after the first is to
compute, and from whom it gets the rows. So a device can hand rows on, or not; it cannot have another step computed,
or have its result sent elsewhere. That the rows are those that the client has, the client sees by their hash.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from msgspec import Struct

from protocol import cbor
from protocol.discreet import Discreet
from protocol.errors import RemoteProtocolError
from protocol.fields import take_bytes, take_list
from protocol.identity import PeerId, peer_id_of, public_key_of
from protocol.limits import HASH_BYTES, MAX_DATA_HEADER_BYTES, MAX_ONWARD
from protocol.pattern import ENCODED_HASH
from protocol.spans.binding import SpanBinding

SEAL_PERSON = b"kek/1 onward"
SEAL_BYTES = HASH_BYTES
ENCODED_ENTRY = b"\x83" + ENCODED_HASH
"""How a device of a way begins in CBOR."""
_ENTRY_BYTES = 160
"""At most, of one device of a way: keys, binding and seal, without the sequences."""
_PART_BYTES = 28
"""At most, of one sequence of a binding."""


class Onward(Discreet, Struct, frozen=True):
    """A device after the first of a way, and what it is to compute."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("seal",)
    peer_id: PeerId
    binding: SpanBinding
    seal: bytes

    def as_list(self) -> list[Any]:
        return [public_key_of(self.peer_id), self.binding.as_list(), self.seal]

    @property
    def encoded(self) -> bytes:
        """`as_list` in deterministic CBOR."""
        if len(self.seal) != SEAL_BYTES:
            return cbor.encode(self.as_list())
        return b"".join((ENCODED_ENTRY, public_key_of(self.peer_id), self.binding.encoded, ENCODED_HASH, self.seal))

    @classmethod
    def from_entry(cls, entry: Any) -> Self:
        if not isinstance(entry, list) or len(entry) != 3:
            raise RemoteProtocolError("a device of a way is [key, binding, seal]")
        fields = dict(enumerate(entry))
        binding = SpanBinding.from_list(take_list(fields, 1, 5))
        return cls(peer_id_of(take_bytes(fields, 0, HASH_BYTES)), binding, take_bytes(fields, 2, SEAL_BYTES))


def way_of(entries: Sequence[Any], num_rows: int) -> tuple[Onward, ...]:
    """The devices after one that computes so many rows; each computes as many."""
    way = tuple(map(Onward.from_entry, entries))
    if not way:
        raise RemoteProtocolError("a way has at least one device")
    if any(onward.binding.num_rows != num_rows for onward in way):
        raise RemoteProtocolError("all devices of a way compute the same rows")
    return way


def seal_of(key: bytes, sender: PeerId, binding: SpanBinding, onward: Sequence[Onward]) -> bytes:
    """The seal of a step, of who hands it on, and of where its result goes: BLAKE2b with the client's key for the
    device that computes it, over all three as deterministic CBOR."""
    message = cbor.encode([public_key_of(sender), binding.as_list(), [one.as_list() for one in onward]])
    return hashlib.blake2b(message, key=key, digest_size=SEAL_BYTES, person=SEAL_PERSON).digest()


def is_sealed(key: bytes, sender: PeerId, binding: SpanBinding, onward: Sequence[Onward], seal: bytes) -> bool:
    """Whether the client sealed this very step for this sender."""
    return hmac.compare_digest(seal_of(key, sender, binding, onward), seal)


def most_onward(num_parts: int) -> int:
    """How many devices may follow the first where a step has so many sequences: all of them are in one header."""
    fitting = MAX_DATA_HEADER_BYTES // (_ENTRY_BYTES + num_parts * _PART_BYTES) - 1
    return max(0, min(MAX_ONWARD, fitting))
