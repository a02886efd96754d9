"""Membership of one node, without sockets, clocks or randomness of its own: `receive` and `tick` return actions.

Two planes. Records are signed by their owners and only ever replaced by newer ones. Liveness is hearsay that can cast
suspicion and no more.

    records      what a node says of itself, signed        own_record   this node's own
    peer_table   merge of what is held of each peer        key_set      peers to draw from
    exchange     records and claims between two tables     gossip       news waiting to be pushed
    sync         what two tables lack of each other        timers       deadlines by name
    liveness     probing and suspicion together            probing      whose turn it is, and for whom
    suspicion    how long a suspect has to speak up        health       this node's own trouble
    membership_core, _actions, _messages, _config          what these share
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import assert_never

from protocol.identity import Identity, PeerId
from protocol.membership.actions import Action
from protocol.membership.config import MembershipConfig
from protocol.membership.core import MembershipCore
from protocol.membership.exchange import Exchange
from protocol.membership.health import LocalHealth
from protocol.membership.liveness import Liveness
from protocol.membership.messages import Gossip, MembershipMessage, PingReq, PingResult, State, Sync, SyncOk
from protocol.membership.own_record import OwnRecord
from protocol.membership.peer_table import Entry, PeerTable
from protocol.membership.records import PeerFacts, PeerRecord, next_seq, open_record
from protocol.membership.timers import Timer

TIMER_SLACK_S = 0.001
"""A deadline this near counts as reached: otherwise a rounding error could set the same deadline again and again."""


class Membership:
    """What one node knows of its swarm. Single-threaded: its driver calls it from one thread."""

    def __init__(
        self,
        identity: Identity,
        facts: PeerFacts,
        seq: int,
        now: float,
        rng: random.Random,
        config: MembershipConfig | None = None,
        verify: Callable[[bytes], PeerRecord] = open_record,
    ) -> None:
        """`seq` is `next_seq(stored, unix_ms)`; `rng` in production is a `random.SystemRandom`."""
        config = config or MembershipConfig()
        table = PeerTable(config.max_peers, config.max_tombstones, config.tombstone_s)
        self._core = MembershipCore(identity.public_key, config, rng, table, LocalHealth(config.max_health))
        self._own = OwnRecord(self._core, identity, facts, seq, now)
        self._liveness = Liveness(self._core)
        self._exchange = Exchange(self._core, self._liveness, self._own, verify)
        self._lost_s = 0.0
        timers = self._core.timers
        timers.set(Timer.PROBE, now + rng.random() * config.probe_interval_s)
        timers.set(Timer.SYNC, now + rng.random() * config.sync_soon_s)
        timers.set(Timer.SWEEP, now + config.sweep_s)

    # --- what is known

    @property
    def record(self) -> PeerRecord:
        """This node's own record."""
        return self._own.record

    @property
    def table_hash(self) -> bytes:
        return self._core.table.hash

    @property
    def health(self) -> int:
        """This node's own trouble, 0 (well) to `max_health`."""
        return self._core.health.score

    def peers(self) -> list[Entry]:
        """All known peers but this one, whatever their state."""
        return [entry for entry in self._core.table.entries() if entry.record.public_key != self._core.me]

    def peer(self, peer: PeerId) -> Entry | None:
        return self._core.table.get(self._core.table.key_of(peer))

    def anchors(self) -> list[bytes]:
        """Records of live peers, those heard most recently first: for `load` after a restart."""
        live = [entry for entry in self.peers() if entry.state <= State.SUSPECT]
        live.sort(key=lambda entry: entry.heard_at if entry.heard_at is not None else float("-inf"), reverse=True)
        return [entry.record.envelope for entry in live]

    # --- what the driver tells

    def next_tick(self) -> float:
        """When `tick` is to be called; may be in the past."""
        return self._core.timers.next() + self._lost_s

    def tick(self, now: float) -> list[Action]:
        """Deadlines that have passed."""
        local = self._local(now) + TIMER_SLACK_S
        while (due := self._core.timers.take(local)) is not None:
            if not self._own.left or due[0] is Timer.GOSSIP:
                self._due(*due, local)
        return self._core.take_actions()

    def heard(self, now: float, peer: PeerId) -> list[Action]:
        """Any frame came from this peer itself, which an authenticated link proved: PONG above all."""
        self._liveness.heard(self._core.table.key_of(peer), self._local(now))
        return self._core.take_actions()

    def receive(self, now: float, sender: PeerId, message: MembershipMessage) -> list[Action]:
        """A message of membership came; `heard` is included."""
        local, key = self._local(now), self._core.table.key_of(sender)
        self._liveness.heard(key, local)
        if not self._own.left:
            self._handle(message, key, local)
        return self._core.take_actions()

    def link_up(self, now: float, peer: PeerId, dialled: bool) -> list[Action]:
        """A handshake is done. Whoever dialled begins the exchange of tables."""
        local, key = self._local(now), self._core.table.key_of(peer)
        self._core.links.add(key)
        self._liveness.heard(key, local)
        if dialled:
            self._exchange.send_sync(key)
        return self._core.take_actions()

    def link_down(self, now: float, peer: PeerId) -> list[Action]:
        """The last link to this peer is gone."""
        key = self._core.table.key_of(peer)
        self._core.links.discard(key)
        self._liveness.doubtful(key, self._local(now))
        return self._core.take_actions()

    def update(self, now: float, unix_ms: int, facts: PeerFacts) -> list[Action]:
        """This node's addresses or abilities changed."""
        local = self._local(now)
        if facts != self._own.record.facts:
            self._own.issue(facts, next_seq(self._own.record.seq, unix_ms), local)
        return self._core.take_actions()

    def leave(self, now: float, unix_ms: int) -> list[Action]:
        """This node says goodbye to all; from then on it only repeats the goodbye."""
        local = self._local(now)
        self._own.issue(self._own.record.facts, next_seq(self._own.record.seq, unix_ms), local, left=True)
        farewell = Gossip(records=(self._own.record.envelope,))
        for key in self._core.choose(self._core.config.leave_fanout):
            self._core.send(key, farewell)
        return self._core.take_actions()

    def load(self, now: float, envelopes: Iterable[bytes]) -> list[Action]:
        """Records of an earlier run; those that cannot be read are left out."""
        local = self._local(now)
        for envelope in envelopes:
            self._exchange.offer(envelope, self._core.me, local, spread=False)
        return self._core.take_actions()

    def _local(self, now: float) -> float:
        """The time without this node's own pauses: while it slept, nobody could be heard.

        After a pause it goes back a little, so that what has arrived meanwhile is read before a deadline counts.
        """
        config = self._core.config
        late_s = now - self.next_tick()
        if late_s > config.lag_limit_s:
            self._core.health.worse(1 + int(late_s))
            self._lost_s += late_s + config.lag_grace_s
        return now - self._lost_s

    # --- inside

    def _handle(self, message: MembershipMessage, sender: bytes, now: float) -> None:
        match message:
            case Gossip():
                self._exchange.hear_news(message, sender, now)
            case Sync():
                self._exchange.answer_sync(message, sender, now)
            case SyncOk():
                self._exchange.go_on_with_sync(message, sender, now)
            case PingReq():
                self._liveness.asked(message, sender, now)
            case PingResult():
                self._liveness.reported(message, sender)
            case _ as unreachable:
                assert_never(unreachable)

    def _due(self, kind: Timer, key: bytes, now: float) -> None:
        match kind:
            case Timer.PROBE:
                self._liveness.probe_due(now)
            case Timer.ANSWER:
                self._liveness.answer_due(key, now)
            case Timer.HELP:
                self._liveness.help_due(key, now)
            case Timer.SUSPICION:
                self._liveness.suspicion_due(key, now)
            case Timer.GOSSIP:
                self._exchange.news_due(now)
            case Timer.SYNC:
                self._exchange.sync_due(now)
            case Timer.REFUTE:
                self._own.refute(now)
            case Timer.SWEEP:
                self._exchange.sweep(now)
            case _ as unreachable:
                assert_never(unreachable)
