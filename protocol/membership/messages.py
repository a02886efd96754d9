"""Messages of membership: gossip, anti-entropy and indirect probes. Every size is bounded before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, ClassVar, Self

from msgspec import Struct

from protocol.errors import RemoteProtocolError
from protocol.fields import take_bytes, take_integer, take_list
from protocol.limits import HASH_BYTES, MAX_CONTROL_FRAME_BYTES
from protocol.membership.records import KEY_BYTES, MAX_RECORD_BYTES, MAX_SEQ
from protocol.message import BodyMessage, MessageType

# SPEC.md, section on membership.
MAX_MESSAGE_RECORDS = 256
MAX_MESSAGE_CLAIMS = 256
MAX_DIGEST_ENTRIES = 1024
PREFIX_BYTES = 8
MAX_PROBE_NUMBER = (1 << 63) - 1

CLAIM_BYTES = 80
"""Most bytes of a claim in CBOR; likewise of a wanted key."""
WANT_BYTES = 34
MAX_PACKED_BYTES = MAX_CONTROL_FRAME_BYTES - 4096
"""What senders fill a message to."""


class State(IntEnum):
    """What a node believes of a peer; at equal seq the larger state wins."""

    ALIVE = 1
    SUSPECT = 2
    DEAD = 3
    LEFT = 4


class Claim(Struct, frozen=True):
    """Hearsay: `accuser` believes that `subject`, as of its record `seq`, is SUSPECT or DEAD."""

    subject: bytes
    seq: int
    state: State
    accuser: bytes

    def to_list(self) -> list[Any]:
        return [self.subject, self.seq, int(self.state), self.accuser]

    @classmethod
    def from_list(cls, entry: Any) -> Self:
        fields = _entries(entry, 4, "a claim is [subject, seq, state, accuser]")
        return cls(
            subject=take_bytes(fields, 0, KEY_BYTES),
            seq=take_integer(fields, 1, 0, MAX_SEQ),
            state=State(take_integer(fields, 2, State.SUSPECT, State.DEAD)),
            accuser=take_bytes(fields, 3, KEY_BYTES),
        )


class DigestEntry(Struct, frozen=True):
    """One peer that the sender believes alive or suspect."""

    key: bytes
    seq: int
    prefix: bytes
    """First 8 bytes of the SHA-256 of its record."""


class Digest(Struct, frozen=True):
    """All peers with `start <= key < end` that the sender believes alive or suspect, in order."""

    start: bytes
    end: bytes | None
    """None: up to the last."""
    entries: tuple[DigestEntry, ...]

    def covers(self, key: bytes) -> bool:
        return self.start <= key and (self.end is None or key < self.end)

    def to_list(self) -> list[Any]:
        return [self.start, self.end, [[entry.key, entry.seq, entry.prefix] for entry in self.entries]]

    @classmethod
    def from_list(cls, value: Any) -> Self:
        fields = _entries(value, 3, "a digest is [start, end, entries]")
        start = take_bytes(fields, 0, KEY_BYTES)
        end = None if fields[1] is None else take_bytes(fields, 1, KEY_BYTES)
        entries = tuple(_read_digest_entry(entry) for entry in take_list(fields, 2, MAX_DIGEST_ENTRIES))
        return cls(start, end, entries)


class PingReq(BodyMessage, frozen=True):
    """Please ping `target` for me, and tell me with the same number whether it answers."""

    TYPE: ClassVar[MessageType] = MessageType.PING_REQ
    target: bytes
    number: int

    def to_body(self) -> dict[int, Any]:
        return {0: self.target, 1: self.number}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls(take_bytes(body, 0, KEY_BYTES), take_integer(body, 1, 0, MAX_PROBE_NUMBER))


class PingResult(BodyMessage, frozen=True):
    """Answer to a PingReq. A «not reached» in time says that the helper and the way to it are sound."""

    TYPE: ClassVar[MessageType] = MessageType.PING_RESULT
    target: bytes
    number: int
    reached: bool

    def to_body(self) -> dict[int, Any]:
        return {0: self.target, 1: self.number, 2: int(self.reached)}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        number = take_integer(body, 1, 0, MAX_PROBE_NUMBER)
        return cls(take_bytes(body, 0, KEY_BYTES), number, bool(take_integer(body, 2, 0, 1)))


class Gossip(BodyMessage, frozen=True):
    """News, pushed: envelopes of records, and claims."""

    TYPE: ClassVar[MessageType] = MessageType.GOSSIP
    records: tuple[bytes, ...] = ()
    claims: tuple[Claim, ...] = ()

    def to_body(self) -> dict[int, Any]:
        return {0: list(self.records), 1: [claim.to_list() for claim in self.claims]}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls(_read_records(body, 0), _read_claims(body, 1))


class Sync(BodyMessage, frozen=True):
    """Begin of anti-entropy: one hash over the sender's table, and the sender's own record."""

    TYPE: ClassVar[MessageType] = MessageType.SYNC
    table_hash: bytes
    record: bytes

    def to_body(self) -> dict[int, Any]:
        return {0: self.table_hash, 1: self.record}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls(take_bytes(body, 0, HASH_BYTES), _read_record(body.get(1)))


class SyncOk(BodyMessage, frozen=True):
    """Any later step of anti-entropy: a digest, what the other lacks, what the sender lacks. All may be empty."""

    TYPE: ClassVar[MessageType] = MessageType.SYNC_OK
    digest: Digest | None = None
    records: tuple[bytes, ...] = ()
    claims: tuple[Claim, ...] = ()
    wants: tuple[bytes, ...] = ()

    def to_body(self) -> dict[int, Any]:
        body: dict[int, Any] = {} if self.digest is None else {0: self.digest.to_list()}
        claims = [claim.to_list() for claim in self.claims]
        return body | {1: list(self.records), 2: claims, 3: list(self.wants)}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        digest = None if 0 not in body else Digest.from_list(body[0])
        wants = tuple(take_bytes({0: key}, 0, KEY_BYTES) for key in take_list(body, 3, MAX_DIGEST_ENTRIES))
        return cls(digest, _read_records(body, 1), _read_claims(body, 2), wants)


MembershipMessage = PingReq | PingResult | Gossip | Sync | SyncOk


def _entries(value: Any, length: int, form: str) -> dict[int, Any]:
    if not isinstance(value, list) or len(value) != length:
        raise RemoteProtocolError(form)
    return dict(enumerate(value))


def _read_digest_entry(value: Any) -> DigestEntry:
    fields = _entries(value, 3, "an entry of a digest is [key, seq, prefix]")
    seq = take_integer(fields, 1, 0, MAX_SEQ)
    return DigestEntry(take_bytes(fields, 0, KEY_BYTES), seq, take_bytes(fields, 2, PREFIX_BYTES))


def _read_record(value: Any) -> bytes:
    if not isinstance(value, bytes) or len(value) > MAX_RECORD_BYTES:
        raise RemoteProtocolError(f"a peer record is not at most {MAX_RECORD_BYTES} bytes")
    return value


def _read_records(body: Mapping[int, Any], key: int) -> tuple[bytes, ...]:
    return tuple(_read_record(value) for value in take_list(body, key, MAX_MESSAGE_RECORDS))


def _read_claims(body: Mapping[int, Any], key: int) -> tuple[Claim, ...]:
    return tuple(Claim.from_list(value) for value in take_list(body, key, MAX_MESSAGE_CLAIMS))
