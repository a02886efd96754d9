"""Anti-entropy: how two tables find out what they lack of each other, in control frames of bounded size.

SYNC carries one hash; only where it differs does a digest follow, one page of the table in the order of keys, and
then only what is missing. A tombstone never travels by itself: it is the answer to somebody who takes its peer for
alive, so that tombstones that have run out do not come back from nodes that got them later.
"""

from __future__ import annotations

import random

from msgspec import Struct, field

from protocol.membership.messages import (
    CLAIM_BYTES,
    MAX_DIGEST_ENTRIES,
    MAX_MESSAGE_CLAIMS,
    MAX_MESSAGE_RECORDS,
    MAX_PACKED_BYTES,
    PREFIX_BYTES,
    WANT_BYTES,
    Claim,
    Digest,
    DigestEntry,
    State,
    SyncOk,
)
from protocol.membership.peer_table import PeerTable
from protocol.membership.records import KEY_BYTES

MAX_FRAMES = 4
"""Frames of one answer; what does not fit comes with the next exchange."""


class Difference(Struct):
    """What two tables lack of each other, as one of them sees it."""

    records: list[bytes] = field(default_factory=list)
    """Envelopes for the other side."""
    claims: list[Claim] = field(default_factory=list)
    wants: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.records) + len(self.claims) + len(self.wants)

    def add(self, more: Difference) -> None:
        self.records += more.records
        self.claims += more.claims
        self.wants += more.wants

    def messages(self) -> list[SyncOk]:
        """At most MAX_FRAMES messages, each within a control frame."""
        packed: list[SyncOk] = []
        records, claims, wants = iter(self.records), self.claims, self.wants
        record = next(records, None)
        while len(packed) < MAX_FRAMES and (record is not None or claims or wants):
            now_claims, claims = claims[:MAX_MESSAGE_CLAIMS], claims[MAX_MESSAGE_CLAIMS:]
            left_bytes = MAX_PACKED_BYTES - CLAIM_BYTES * len(now_claims)
            num_wants = min(MAX_DIGEST_ENTRIES, left_bytes // WANT_BYTES)
            now_wants, wants = wants[:num_wants], wants[num_wants:]
            left_bytes -= WANT_BYTES * len(now_wants)
            now_records: list[bytes] = []
            while record is not None and len(record) + 3 <= left_bytes and len(now_records) < MAX_MESSAGE_RECORDS:
                now_records.append(record)
                left_bytes -= len(record) + 3
                record = next(records, None)
            packed.append(SyncOk(None, tuple(now_records), tuple(now_claims), tuple(now_wants)))
        return packed


def digest_page(table: PeerTable, rng: random.Random) -> Digest:
    """A digest of the live peers: all of them, or one page drawn at random where they are too many."""
    keys = sorted(table.live)
    num_pages = -(-len(keys) // MAX_DIGEST_ENTRIES) or 1
    page = rng.randrange(num_pages)
    first, last = page * MAX_DIGEST_ENTRIES, (page + 1) * MAX_DIGEST_ENTRIES
    start = keys[first] if first else bytes(KEY_BYTES)
    end = keys[last] if last < len(keys) else None
    entries: list[DigestEntry] = []
    for key in keys[first:last]:
        entry = table.get(key)
        assert entry is not None, "live peers are in the table"
        entries.append(DigestEntry(key, entry.record.seq, entry.record.digest[:PREFIX_BYTES]))
    return Digest(start, end, tuple(entries))


def difference(table: PeerTable, digest: Digest, me: bytes) -> Difference:
    """Compare a peer's digest with this table."""
    lacking = Difference()
    listed: set[bytes] = set()
    for theirs in digest.entries:
        if not digest.covers(theirs.key):
            continue
        listed.add(theirs.key)
        mine = table.get(theirs.key)
        if mine is None or mine.record.seq < theirs.seq:
            lacking.wants.append(theirs.key)
        elif mine.record.seq > theirs.seq:
            lacking.records.append(mine.record.envelope)
        elif not mine.record.digest.startswith(theirs.prefix):
            lacking.records.append(mine.record.envelope)
            lacking.wants.append(theirs.key)
        elif mine.state is State.DEAD:
            lacking.claims.append(Claim(theirs.key, theirs.seq, State.DEAD, me))
    for key in sorted(table.live):
        if key not in listed and digest.covers(key):
            entry = table.get(key)
            assert entry is not None, "live peers are in the table"
            lacking.records.append(entry.record.envelope)
    return lacking


def wanted(table: PeerTable, wants: tuple[bytes, ...]) -> Difference:
    """The records that a peer asks for."""
    held = (table.get(key) for key in wants)
    return Difference(records=[entry.record.envelope for entry in held if entry is not None])
