"""News waiting to be pushed: what was sent least goes first, and is dropped when everybody should have it."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable

from msgspec import Struct

from protocol.membership.messages import (
    CLAIM_BYTES,
    MAX_MESSAGE_CLAIMS,
    MAX_MESSAGE_RECORDS,
    Claim,
    Gossip,
)
from protocol.membership.records import PeerRecord

MAX_GOSSIP_BYTES = 16 * 1024
"""Most bytes of one push: a quarter of a control frame, so that pings never wait long behind news."""
MAX_QUEUED = 4096


class ForkProof(Struct, frozen=True):
    """Two records of one owner with one seq. They travel together: each by itself proves nothing."""

    first: PeerRecord
    second: PeerRecord


Item = PeerRecord | Claim | ForkProof


class _News(Struct):
    item: Item
    num_sent: int = 0


class GossipQueue:
    """News by name: a newer piece replaces an older one of the same name."""

    def __init__(self) -> None:
        self._news: dict[Hashable, _News] = {}

    def put(self, name: Hashable, item: Item) -> None:
        self._news.pop(name, None)
        if len(self._news) >= MAX_QUEUED:
            self._news.pop(next(iter(self._news)))  # the oldest; anti-entropy will carry it
        self._news[name] = _News(item)

    def __len__(self) -> int:
        return len(self._news)

    def take(self, num_targets: int, limit: int, is_current: Callable[[Item], bool]) -> Gossip | None:
        """One message for `num_targets` peers; None where nothing current is left."""
        records: list[bytes] = []
        claims: list[Claim] = []
        left_bytes = MAX_GOSSIP_BYTES
        for name, news in sorted(self._news.items(), key=lambda entry: entry[1].num_sent):
            if not is_current(news.item):
                del self._news[name]
                continue
            if isinstance(news.item, Claim):
                if len(claims) == MAX_MESSAGE_CLAIMS or left_bytes < CLAIM_BYTES:
                    continue
                claims.append(news.item)
                left_bytes -= CLAIM_BYTES
            else:
                envelopes = _envelopes(news.item)
                size = sum(len(envelope) + 3 for envelope in envelopes)
                if len(records) + len(envelopes) > MAX_MESSAGE_RECORDS or left_bytes < size:
                    continue
                records += envelopes
                left_bytes -= size
            news.num_sent += num_targets
            if news.num_sent >= limit:
                del self._news[name]
        return Gossip(tuple(records), tuple(claims)) if records or claims else None


def _envelopes(item: PeerRecord | ForkProof) -> list[bytes]:
    return [item.envelope] if isinstance(item, PeerRecord) else [item.first.envelope, item.second.envelope]


def transmissions(multiplier: int, num_peers: int) -> int:
    """How many times in all a node sends a piece of news."""
    return multiplier * math.ceil(math.log10(num_peers + 1)) if num_peers else 0
