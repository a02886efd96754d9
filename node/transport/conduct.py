"""How peers behave on a plane: how much of its thread their messages take, and what rules they break.

Requests are computed in turn (`node.serving.work_queue`), but messages come in one stream, which cannot be read for
one peer and not for another. So a message of somebody who has used up its part of the time is dropped before it is
decoded.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from msgspec import Struct

from protocol.identity import PeerId

MESSAGE_SHARE = 0.25
"""Part of the thread's time that messages may take while several peers send, shared equally among them."""
MODEST = 0.5
"""A peer that uses less than this part of what the heaviest sender uses is always heard: a flood pays for itself."""
REFUSED_S = 0.001
"""Cost of a request for which there is no room: whoever keeps asking is soon no longer read."""
BURST_S = 0.1
"""Time that a peer may use at once after a pause."""
RECENT_S = 1.0
"""A peer counts as sending for this long after a message."""
MAX_KNOWN = 1024
"""Most peers that are remembered; beyond them, the one that sent longest ago is forgotten."""
PARDON_S = 60.0
"""Broken rules are forgotten over this time."""
MALFORMED_LIMIT = 32
"""A peer that sends so many malformed messages within the time of pardon is kept out."""
UNKNOWN_LIMIT = 1024
"""The same for messages of unknown types: a peer of a later version may send some."""
DROPPED_LIMIT = 2048
"""The same for messages that were dropped because their sender had used up its part: even reading them takes time.
A request within the limits of a queue is never dropped."""

Sender = PeerId | bytes | None
"""A peer, or the CURVE key of one; None: all who said no hello, together."""


class _Record(Struct):
    at: float
    """When it sent something last."""
    own_at: float = -math.inf
    """When it sent something last that was its own."""
    credit_s: float = BURST_S
    used_s: float = 0.0
    """Time that its messages took lately: it halves every `RECENT_S`."""
    faults: float = 0.0
    """1 is the limit."""
    faults_at: float = 0.0


class Conduct:
    """Of every peer that sent something lately. The clock is an argument."""

    def __init__(self) -> None:
        self._records: OrderedDict[Sender, _Record] = OrderedDict()
        """The one that sent longest ago first."""
        self._recent: OrderedDict[Sender, None] = OrderedDict()
        self._bearers: set[Sender] = set()
        """Those of them who only brought what is others'."""
        self.dropped = 0
        """Messages that were not decoded."""

    def is_shared(self, sender: Sender, now: float) -> bool:
        """Whether anybody else sent something lately that was his own."""
        self._expire(now)
        is_there = sender in self._recent and sender not in self._bearers
        return len(self._recent) - len(self._bearers) > is_there

    def may_send(self, sender: Sender, now: float) -> bool:
        """Whether a message that has come is read; anybody may use time that nobody else wants."""
        record = self._record(sender, now)
        if record.credit_s > 0.0 or not self.is_shared(sender, now):
            return True
        if record.used_s < MODEST * max(self._records[other].used_s for other in self._recent):
            return True
        self.dropped += 1
        return False

    def sent(self, sender: Sender, now: float) -> None:
        """A message came that waits for its turn; its time is accounted for there."""
        self._record(sender, now)

    def opened(self, sender: Sender, now: float) -> None:
        """A message that has come was opened, and is its sender's own."""
        self._record(sender, now).own_at = now
        self._bearers.discard(sender)

    def brought(self, bearer: Sender, sender: Sender, now: float) -> None:
        """It is another's, who had it brought here: that one counts as sending, and its bearer only if he sent
        something of his own lately, too."""
        self.opened(sender, now)
        if now - self._record(bearer, now).own_at > RECENT_S:
            self._bearers.add(bearer)

    def spent(self, sender: Sender, seconds: float, now: float) -> None:
        """A message took so long."""
        record = self._record(sender, now)
        record.credit_s = max(record.credit_s - seconds, -BURST_S)
        record.used_s += seconds

    def malformed(self, sender: Sender, now: float) -> bool:
        """A message broke the format; returns whether its sender is to be kept out."""
        return self._fault(sender, 1 / MALFORMED_LIMIT, now)

    def unknown(self, sender: Sender, now: float) -> bool:
        """A message was of an unknown type; returns whether its sender is to be kept out."""
        return self._fault(sender, 1 / UNKNOWN_LIMIT, now)

    def flooded(self, sender: Sender, now: float) -> bool:
        """A message was dropped; returns whether its sender is to be kept out."""
        return self._fault(sender, 1 / DROPPED_LIMIT, now)

    def _fault(self, sender: Sender, weight: float, now: float) -> bool:
        record = self._record(sender, now)
        record.faults = max(0.0, record.faults - (now - record.faults_at) / PARDON_S) + weight
        record.faults_at = now
        if record.faults < 1.0 - weight / 2:  # not a sum of fractions against a whole
            return False
        record.faults = 0.0  # said once, and not again for each message that is still on its way
        return True

    def _record(self, sender: Sender, now: float) -> _Record:
        """The record of somebody who sends now, with the credit gained since its last message."""
        record = self._records.get(sender)
        if record is None:
            record = self._records[sender] = _Record(now)
            if len(self._records) > MAX_KNOWN:
                oldest, _record = self._records.popitem(last=False)
                self._recent.pop(oldest, None)
                self._bearers.discard(oldest)
        since_s, record.at = now - record.at, now
        record.used_s *= 0.5 ** (since_s / RECENT_S)
        self._records.move_to_end(sender)
        self._recent[sender] = None
        self._recent.move_to_end(sender)
        self._expire(now)
        record.credit_s = min(BURST_S, record.credit_s + since_s * MESSAGE_SHARE / len(self._recent))
        return record

    def _expire(self, now: float) -> None:
        while self._recent:
            sender = next(iter(self._recent))
            if now - self._records[sender].at <= RECENT_S:
                return
            del self._recent[sender]
            self._bearers.discard(sender)
