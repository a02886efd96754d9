"""This node's own record: issued anew when facts change, when others doubt the node, and when it says goodbye."""

from __future__ import annotations

from protocol.identity import Identity
from protocol.membership.actions import Doubled, Issued
from protocol.membership.core import MembershipCore
from protocol.membership.messages import Claim
from protocol.membership.records import PeerFacts, PeerRecord, fitted, sign_record
from protocol.membership.timers import Timer


class OwnRecord:
    """The newest record of this node. Its seq only grows."""

    def __init__(self, core: MembershipCore, identity: Identity, facts: PeerFacts, seq: int, now: float) -> None:
        self._core = core
        self._identity = identity
        self._issued_at = now
        self.record: PeerRecord = sign_record(identity, fitted(facts), seq)
        core.table.merge(self.record, now, core.rng)

    @property
    def left(self) -> bool:
        return self.record.left

    def issue(self, facts: PeerFacts, seq: int, now: float, left: bool = False) -> None:
        """Sign a new record and tell everybody."""
        self.record = sign_record(self._identity, fitted(facts), seq, left)
        self._issued_at = now
        self._core.table.merge(self.record, now, self._core.rng)
        self._core.actions.append(Issued(self.record))
        self._core.publish(("record", self._core.me), self.record, now)

    def met(self, record: PeerRecord, now: float) -> None:
        """Somebody has a record of this node from an earlier life, or of another device: speak with a higher seq."""
        if record.seq >= self.record.seq and not self.left:
            self._core.actions.append(Doubled(record))
            self.issue(self.record.facts, record.seq + 1, now)

    def accused(self, claim: Claim, now: float) -> None:
        """Somebody believes this node suspect or dead. A claim with a seq other than ours is old, or made up."""
        if claim.seq == self.record.seq:
            self._core.health.worse()
            pause_s = self._core.config.refute_pause_s
            self._core.timers.set_earlier(Timer.REFUTE, max(now, self._issued_at + pause_s))

    def refute(self, now: float) -> None:
        """A record with a higher seq ends every suspicion against the one before it."""
        self.issue(self.record.facts, self.record.seq + 1, now)
