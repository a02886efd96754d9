"""What two tables exchange: news that is pushed, anti-entropy, and the records that come with either."""

from __future__ import annotations

from collections.abc import Callable

from protocol.errors import RemoteProtocolError
from protocol.identity import peer_id_of
from protocol.membership.actions import Forgotten, Forked, Misbehaved
from protocol.membership.core import MembershipCore
from protocol.membership.gossip import ForkProof, Item, transmissions
from protocol.membership.liveness import Liveness
from protocol.membership.messages import Claim, Gossip, State, Sync, SyncOk
from protocol.membership.own_record import OwnRecord
from protocol.membership.peer_table import Merge
from protocol.membership.records import PeerRecord, claimed_key
from protocol.membership.sync import Difference, difference, digest_page, wanted
from protocol.membership.timers import Timer

MAX_SPREAD_RECORDS = 32
"""An exchange that brings more records than this copies a table: others have these records already."""
LARGE_DIFFERENCE = 64
"""After a digest that showed more than this, the next exchange comes soon."""


class Exchange:
    """Gossip and anti-entropy of one node."""

    def __init__(
        self, core: MembershipCore, liveness: Liveness, own: OwnRecord, verify: Callable[[bytes], PeerRecord]
    ) -> None:
        self._core = core
        self._liveness = liveness
        self._own = own
        self._verify = verify
        self._introduced: dict[bytes, int] = {}
        self._digested_at: dict[bytes, float] = {}

    # --- messages

    def hear_news(self, news: Gossip, sender: bytes, now: float) -> None:
        """A push of records and claims."""
        self._offer_all(news.records, sender, now)
        self._hear_claims(news.claims, sender, now)

    def send_sync(self, key: bytes) -> None:
        """Begin an exchange with a peer."""
        self._core.send(key, Sync(self._core.table.hash, self._own.record.envelope))

    def answer_sync(self, message: Sync, sender: bytes, now: float) -> None:
        """A peer begins an exchange: an empty answer where the tables are equal, else a digest."""
        answer = Difference()
        self.offer(message.record, sender, now, answer=answer)
        if message.table_hash == self._core.table.hash:
            self._core.send(sender, SyncOk())
        elif now - self._digested_at.get(sender, float("-inf")) >= self._core.config.digest_pause_s:
            self._digested_at[sender] = now
            self._core.send(sender, SyncOk(digest_page(self._core.table, self._core.rng)))
        self._send_all(sender, answer)

    def go_on_with_sync(self, message: SyncOk, sender: bytes, now: float) -> None:
        """A later step of an exchange: take in what came, answer with what the other side lacks."""
        answer = wanted(self._core.table, message.wants)
        self._offer_all(message.records, sender, now, len(message.records) <= MAX_SPREAD_RECORDS, answer)
        self._hear_claims(message.claims, sender, now)
        if message.digest is not None:
            lacking = difference(self._core.table, message.digest, self._core.me)
            answer.add(lacking)
            if len(lacking) > LARGE_DIFFERENCE:
                self._core.timers.set_earlier(Timer.SYNC, now + self._core.config.sync_soon_s)
        self._send_all(sender, answer)

    def _hear_claims(self, claims: tuple[Claim, ...], sender: bytes, now: float) -> None:
        for claim in claims:
            if claim.subject == self._core.me:
                self._own.accused(claim, now)
            else:
                self._liveness.claimed(claim, sender, now)

    def _send_all(self, key: bytes, answer: Difference) -> None:
        for message in answer.messages():
            self._core.send(key, message)

    # --- deadlines

    def news_due(self, now: float) -> None:
        """Push what is new to a few peers."""
        core, config = self._core, self._core.config
        targets = core.choose(config.gossip_fanout)
        if targets:
            limit = transmissions(config.gossip_multiplier, len(core.table.live))
            message = core.news.take(len(targets), limit, self._is_current)
            if message is not None:
                for key in targets:
                    core.send(key, message)
            core.pushed_at = now
        if len(core.news):
            core.timers.set(Timer.GOSSIP, now + config.gossip_interval_s)

    def sync_due(self, now: float) -> None:
        """Compare tables with one random peer."""
        core, config = self._core, self._core.config
        known = core.choose(1)
        # With a dead peer as well: after a partition nobody else would look for the other side.
        lost = [key for key in core.table.dead.sample(core.rng, 1) if core.is_reachable(key)]
        for key in (known or core.links.sample(core.rng, 1)) + lost:
            self.send_sync(key)
        pause_s = config.sync_interval_s if known else config.sync_soon_s
        core.timers.set(Timer.SYNC, now + pause_s * (0.8 + 0.4 * core.rng.random()))

    def sweep(self, now: float) -> None:
        """Once a minute: forget tombstones that ran out, and how much each sender introduced."""
        for record in self._core.table.expire(now):
            self._core.actions.append(Forgotten(record.peer_id))
        self._introduced.clear()
        self._digested_at.clear()
        self._core.timers.set(Timer.SWEEP, now + self._core.config.sweep_s)

    def _is_current(self, item: Item) -> bool:
        """Whether a piece of news is still worth a frame."""
        if isinstance(item, ForkProof):
            return True
        entry = self._core.table.get(item.subject if isinstance(item, Claim) else item.public_key)
        if entry is None or entry.record.seq != item.seq:
            return False
        return isinstance(item, PeerRecord) or entry.state in (State.SUSPECT, State.DEAD)

    # --- records

    def _offer_all(
        self,
        envelopes: tuple[bytes, ...],
        sender: bytes,
        now: float,
        spread: bool = True,
        answer: Difference | None = None,
    ) -> None:
        """Records of one message: two of them may prove a fork that this node did not see happen."""
        met: dict[tuple[bytes, int], PeerRecord] = {}
        for envelope in envelopes:
            record = self.offer(envelope, sender, now, spread, answer)
            if record is not None:
                twin = met.setdefault((record.public_key, record.seq), record)
                if twin.digest != record.digest:
                    self._flag(twin, record, now)

    def offer(
        self, envelope: bytes, sender: bytes, now: float, spread: bool = True, answer: Difference | None = None
    ) -> PeerRecord | None:
        """Take a record in if it is news; where the sender is behind, `answer` collects what it should know.

        Returns the record where it is genuine, news or not.
        """
        core = self._core
        try:
            key = claimed_key(envelope)
            before = core.table.get(key)
            if (
                before is not None and before.record.envelope == envelope
            ):  # nearly all that comes: no signature to check
                if before.state is State.DEAD and answer is not None:
                    answer.claims.append(Claim(key, before.record.seq, State.DEAD, core.me))
                return before.record
            if before is None and not self._may_introduce(key, sender):
                return None
            record = self._verify(envelope)
        except RemoteProtocolError as exc:
            core.actions.append(Misbehaved(peer_id_of(sender), f"sent a bad peer record: {exc}"))
            return None
        if key == core.me:
            self._own.met(record, now)
        else:
            self._merge(record, sender, now, spread, answer)
        return record

    def _may_introduce(self, key: bytes, sender: bytes) -> bool:
        if sender in (key, self._core.me):
            return True
        introduced = self._introduced.get(sender, 0)
        self._introduced[sender] = introduced + 1
        return introduced < self._core.config.new_records_per_minute

    def _merge(self, record: PeerRecord, sender: bytes, now: float, spread: bool, answer: Difference | None) -> None:
        core, key = self._core, record.public_key
        entry = core.table.get(key)
        before = entry.standing if entry is not None else None
        outcome = core.table.merge(record, now, core.rng, verified=key == sender)
        self._report_displaced()
        entry = core.table.get(key)
        if entry is None or outcome is Merge.REFUSED:
            return
        if outcome is Merge.STALE and answer is not None:
            answer.records.append(entry.record.envelope)
        elif outcome is Merge.NEW:
            self._liveness.learned(key)
            entry.heard_at = now if key == sender else None
        elif outcome is Merge.NEWER:
            self._liveness.renewed(key)
        elif outcome is Merge.FORKED and before is not None:
            self._flag(before.record, record, now)
        if before is None or before.record.digest != entry.record.digest:
            core.changed(entry, before.state if before is not None else None)
            if spread:
                core.publish(("record", key), entry.record, now)

    def _flag(self, first: PeerRecord, second: PeerRecord, now: float) -> None:
        """Two records with one seq: remembered, reported and passed on once, together, as proof."""
        entry = self._core.table.get(first.public_key)
        if entry is None or entry.equivocated or first.public_key == self._core.me:
            return
        entry.equivocated = True
        self._core.actions.append(Forked(entry.record.peer_id, first, second))
        self._core.publish(("fork", first.public_key), ForkProof(first, second), now)

    def _report_displaced(self) -> None:
        for record in self._core.table.displaced:
            self._core.actions.append(Forgotten(record.peer_id))
        self._core.table.displaced.clear()
