"""What the parts of membership share: the table, the deadlines, the news, and the actions that were decided."""

from __future__ import annotations

import random
from collections.abc import Collection

from msgspec import Struct, field

from protocol.identity import peer_id_of
from protocol.membership.actions import Action, Changed, Send
from protocol.membership.config import MembershipConfig
from protocol.membership.gossip import GossipQueue, Item
from protocol.membership.health import LocalHealth
from protocol.membership.key_set import KeySet
from protocol.membership.messages import Claim, MembershipMessage, State
from protocol.membership.peer_table import Entry, PeerTable
from protocol.membership.timers import Timer, Timers
from protocol.message import Ping


class MembershipCore(Struct):
    """State and small operations that more than one part needs."""

    me: bytes
    config: MembershipConfig
    rng: random.Random
    table: PeerTable
    health: LocalHealth
    timers: Timers = field(default_factory=Timers)
    news: GossipQueue = field(default_factory=GossipQueue)
    links: KeySet = field(default_factory=KeySet)
    actions: list[Action] = field(default_factory=list)
    pushed_at: float = float("-inf")

    def take_actions(self) -> list[Action]:
        actions, self.actions = self.actions, []
        return actions

    def send(self, key: bytes, message: MembershipMessage | Ping) -> None:
        entry = self.table.get(key)
        self.actions.append(Send(entry.record.peer_id if entry else peer_id_of(key), message))

    def changed(self, entry: Entry, previous: State | None) -> None:
        self.actions.append(Changed(entry.record.peer_id, entry.state, previous, entry.record))

    def set_doubt(self, key: bytes, entry: Entry, doubt: State, now: float) -> None:
        """This node's own view of a peer changes."""
        previous = entry.state
        self.table.set_doubt(key, doubt, now)
        self.changed(entry, previous)

    def publish(self, name: tuple[object, ...], item: Item, now: float) -> None:
        """Push a piece of news: a record at once unless something was just pushed, a claim with the next round."""
        self.news.put(name, item)
        pause_s = self.config.gossip_interval_s if isinstance(item, Claim) else self.config.gossip_gap_s
        self.timers.set_earlier(Timer.GOSSIP, max(now, self.pushed_at + pause_s))

    def is_reachable(self, key: bytes) -> bool:
        """Whether there is a link, or an address to dial."""
        entry = self.table.get(key)
        return key in self.links or (entry is not None and bool(entry.record.facts.addrs))

    def choose(self, count: int, exclude: Collection[bytes] = ()) -> list[bytes]:
        """At most `count` random live peers that can be reached."""
        chosen = [key for key in self.table.live.sample(self.rng, 2 * count + 4) if self._is_choice(key, exclude)]
        return chosen[:count]

    def _is_choice(self, key: bytes, exclude: Collection[bytes]) -> bool:
        return key != self.me and key not in exclude and self.is_reachable(key)
