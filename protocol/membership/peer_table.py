"""The peer table: what this node knows of each peer, merged so that the order of news does not matter.

`join` is the merge itself, on the record plane: commutative, associative, idempotent. A node's own observations
(a peer was heard, a suspicion ran out) are written over it with `set_doubt` and never leave as facts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from protocol.identity import PeerId, public_key_of
from protocol.membership.key_set import KeySet
from protocol.membership.messages import State
from protocol.membership.records import PeerRecord

HASH_MODULUS = 1 << 256


class Standing(Struct, frozen=True):
    """A record and what is thought of its owner as of that record."""

    record: PeerRecord
    doubt: State = State.ALIVE
    """ALIVE, SUSPECT or DEAD; LEFT is never hearsay."""
    forked: bool = False
    """The owner signed two records with this seq."""

    @property
    def state(self) -> State:
        return State.LEFT if self.record.left else self.doubt


def join(first: Standing, second: Standing) -> Standing:
    """Higher seq wins. At equal seq: the larger digest, the larger doubt, and a fork where the bytes differ."""
    if first.record.seq != second.record.seq:
        return first if first.record.seq > second.record.seq else second
    return Standing(
        record=max(first.record, second.record, key=lambda record: record.digest),
        doubt=max(first.doubt, second.doubt),
        forked=first.forked or second.forked or first.record.digest != second.record.digest,
    )


class Merge(Enum):
    """What became of a record that was offered to the table."""

    NEW = "new"
    NEWER = "newer"
    KNOWN = "known"
    STALE = "stale"
    FORKED = "forked"
    """Another record of this seq is held; the one with the larger digest stays."""
    REFUSED = "refused"
    """The table is full, or the other PeerID of this CURVE key has it."""


class Entry(Struct):
    """One peer of the table."""

    standing: Standing
    heard_at: float | None = None
    """When a frame of its own last came; None: known from hearsay only."""
    equivocated: bool = False
    """It once signed two records with one seq. Unlike `Standing.forked` this outlives the record: it is no part of
    the merge but a verdict of this node."""

    @property
    def record(self) -> PeerRecord:
        return self.standing.record

    @property
    def state(self) -> State:
        return self.standing.state


class PeerTable:
    """All peers by public key, with the indexes that keep each query cheap."""

    def __init__(self, max_peers: int, max_tombstones: int, tombstone_s: float) -> None:
        self._max_peers = max_peers
        self._max_tombstones = max_tombstones
        self._tombstone_s = tombstone_s
        self._entries: dict[bytes, Entry] = {}
        self._by_curve_key: dict[bytes, bytes] = {}
        self._by_peer_id: dict[PeerId, bytes] = {}
        self._tombstones: dict[bytes, float] = {}
        self._sum = 0
        self.displaced: list[PeerRecord] = []
        """Records that made room for others; whoever reads them empties the list."""
        self.live = KeySet()
        """Peers that are alive or suspect."""
        self.dead = KeySet()
        """Peers that are dead but did not leave: they may be found again."""

    def get(self, key: bytes) -> Entry | None:
        return self._entries.get(key)

    def key_of(self, peer_id: PeerId) -> bytes:
        """Public key of a PeerID; raises RemoteProtocolError where there is none in it."""
        return self._by_peer_id.get(peer_id) or public_key_of(peer_id)

    def entries(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def hash(self) -> bytes:
        """32 bytes over the records of all live peers: the sum of their digests mod 2^256."""
        return self._sum.to_bytes(32, "big")

    def merge(self, record: PeerRecord, now: float, rng: random.Random, verified: bool = False) -> Merge:
        """Offer a record. `verified`: its owner handed it over itself, and so may take the place of hearsay."""
        key = record.public_key
        before = self._entries.get(key)
        if before is None:
            if not self._has_room(record, rng, verified):
                return Merge.REFUSED
            self._put(key, Entry(Standing(record)), now)
            return Merge.NEW
        after = join(before.standing, Standing(record))
        if after == before.standing:
            if record.seq < before.record.seq:
                return Merge.STALE
            return Merge.KNOWN if record.digest == before.record.digest else Merge.FORKED
        forked = record.seq == before.record.seq
        self._replace(key, before, after, now)
        return Merge.FORKED if forked else Merge.NEWER

    def set_doubt(self, key: bytes, doubt: State, now: float) -> None:
        """Write down this node's own view of a peer in the table."""
        entry = self._entries[key]
        self._replace(key, entry, replace(entry.standing, doubt=doubt), now)

    def expire(self, now: float) -> list[PeerRecord]:
        """Forget the dead and the departed after their time; returns their records."""
        forgotten: list[PeerRecord] = []
        for key, since in list(self._tombstones.items()):  # in the order of time
            if now - since < self._tombstone_s and len(self._tombstones) <= self._max_tombstones:
                break
            forgotten.append(self._entries[key].record)
            self._remove(key)
        return forgotten

    def _has_room(self, record: PeerRecord, rng: random.Random, verified: bool) -> bool:
        """Whether a new record may enter; makes room where the rules say so."""
        rival = self._by_curve_key.get(record.curve_key)
        if rival is not None:  # A and -A of one owner: every node keeps the same one
            if rival < record.public_key:
                return False
            self._displace(rival)
        if record.left:
            return len(self._tombstones) < self._max_tombstones
        if len(self.live) < self._max_peers:
            return True
        for key in self.live.sample(rng, 8) if verified else ():
            if self._entries[key].heard_at is None:
                self._displace(key)
                return True
        return False

    def _displace(self, key: bytes) -> None:
        self.displaced.append(self._entries[key].record)
        self._remove(key)

    def _put(self, key: bytes, entry: Entry, now: float) -> None:
        self._entries[key] = entry
        self._by_curve_key[entry.record.curve_key] = key
        self._by_peer_id[entry.record.peer_id] = key
        self._index(key, entry.standing, now)

    def _replace(self, key: bytes, entry: Entry, standing: Standing, now: float) -> None:
        self._unindex(key, entry.standing, keep_tombstone=standing.state > State.SUSPECT)
        entry.standing = standing
        self._index(key, standing, now)

    def _remove(self, key: bytes) -> None:
        entry = self._entries.pop(key)
        self._unindex(key, entry.standing)
        del self._by_curve_key[entry.record.curve_key]
        del self._by_peer_id[entry.record.peer_id]

    def _index(self, key: bytes, standing: Standing, now: float) -> None:
        if standing.state <= State.SUSPECT:
            self.live.add(key)
            self._sum = (self._sum + int.from_bytes(standing.record.digest, "big")) % HASH_MODULUS
            return
        self._tombstones.setdefault(key, now)
        if standing.state is State.DEAD:
            self.dead.add(key)

    def _unindex(self, key: bytes, standing: Standing, keep_tombstone: bool = False) -> None:
        if standing.state <= State.SUSPECT:
            self.live.discard(key)
            self._sum = (self._sum - int.from_bytes(standing.record.digest, "big")) % HASH_MODULUS
        self.dead.discard(key)
        if not keep_tombstone:
            self._tombstones.pop(key, None)
