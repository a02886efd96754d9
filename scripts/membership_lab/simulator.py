"""A simulator of membership: many state machines, one heap of events, one seed. No socket, no waiting.

The network loses, delays, doubles and divides; nodes pause, crash, come back elsewhere and leave. Time is simulated,
so minutes of a thousand nodes take a while of one core and every run is repeated exactly by its seed.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import random
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from protocol import cbor
from protocol.errors import RemoteProtocolError
from protocol.identity import Identity, PeerId
from protocol.limits import MAX_CONTROL_FRAME_BYTES
from protocol.link.messages import Pong
from protocol.membership.actions import Action, Changed, Forked, Issued, Misbehaved, Send
from protocol.membership.config import MembershipConfig
from protocol.membership.member import Membership
from protocol.membership.messages import MembershipMessage, State
from protocol.membership.peer_table import Entry
from protocol.membership.records import Capabilities, PeerFacts, PeerRecord, next_seq, open_record
from protocol.message import Ping

UNIX_MS = 1_800_000_000_000
ENVELOPE_BYTES = 32
"""Magic, type and id around a body."""

Wire = MembershipMessage | Ping | Pong


class Conditions(Struct, frozen=True):
    """What the network does to messages."""

    loss: float = 0.1
    delay_s: tuple[float, float] = (0.002, 0.05)
    duplicates: float = 0.01
    encoded: bool = False
    """Every message goes through its CBOR form, and its size is checked."""


class SimNode(Struct):
    """One node: its state machine while it runs, and what outlives it."""

    index: int
    identity: Identity
    address: str
    membership: Membership | None = None
    stored_seq: int = 0
    paused_until: float = 0.0
    backlog: list[tuple[PeerId, str, Wire]] = field(default_factory=list)
    tick_at: float = math.inf
    heard_from: dict[PeerId, str] = field(default_factory=dict)
    side: int = 0
    left: bool = False

    @property
    def peer_id(self) -> PeerId:
        return peer_id_of_index(self.index)

    @property
    def running(self) -> Membership:
        assert self.membership is not None, "the node runs"
        return self.membership


@cache
def identity_of(index: int) -> Identity:
    return Identity.from_seed(hashlib.sha256(b"simulated node %d" % index).digest())


@cache
def peer_id_of_index(index: int) -> PeerId:
    return identity_of(index).peer_id


class VerifiedOnce:
    """`open_record` that checks each envelope once for all nodes: a thousand nodes would do it a thousand times."""

    def __init__(self) -> None:
        self._known: dict[bytes, PeerRecord | RemoteProtocolError] = {}

    def __call__(self, envelope: bytes) -> PeerRecord:
        known = self._known.get(envelope)
        if known is None:
            try:
                known = open_record(envelope)
            except RemoteProtocolError as exc:
                known = exc
            self._known[envelope] = known
        if isinstance(known, RemoteProtocolError):
            raise RemoteProtocolError(str(known))
        return known


class Simulation:
    """A swarm in simulated time."""

    def __init__(
        self,
        num_nodes: int,
        seed: int,
        conditions: Conditions | None = None,
        config: MembershipConfig | None = None,
        verify: Callable[[bytes], PeerRecord] | None = None,
    ) -> None:
        self.now = 0.0
        self.rng = random.Random(seed)
        self.seed = seed
        self.conditions = conditions or Conditions()
        self.config = config or MembershipConfig()
        self.verify = verify or VerifiedOnce()
        self.nodes = [SimNode(i, identity_of(i), f"/ip4/10.0.{i >> 8}.{i & 255}/tcp/4711") for i in range(num_nodes)]
        self.by_address: dict[str, SimNode] = {}
        self.changes: list[tuple[float, int, Changed]] = []
        """(time, observer, what) of every change that any node saw since the list was last cleared."""
        self.forks: list[tuple[int, Forked]] = []
        self.misbehaved: list[tuple[int, Misbehaved]] = []
        self.num_messages = 0
        self.num_bytes = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    # --- life of nodes

    def start(self, node: SimNode, address: str | None = None) -> Membership:
        """Start or restart a node, with an empty table."""
        node.address = address or node.address
        self.by_address[node.address] = node
        node.stored_seq = next_seq(node.stored_seq, self.unix_ms)
        facts = PeerFacts((node.address,), "simulated/1", (1,), Capabilities((1,), 10**9, 1 << 30, 4712))
        rng = random.Random(self.rng.getrandbits(64))
        node.membership = Membership(node.identity, facts, node.stored_seq, self.now, rng, self.config, self.verify)
        node.left, node.backlog, node.heard_from = False, [], {}
        node.paused_until, node.tick_at = 0.0, math.inf
        self._arm(node)
        return node.membership

    def start_all_acquainted(self) -> None:
        """Every node starts with the records of all."""
        for node in self.nodes:
            self.start(node)
        envelopes = [node.running.record.envelope for node in self.nodes]
        for node in self.nodes:
            node.running.load(self.now, envelopes)
        self.changes.clear()

    def join(self, node: SimNode, through: SimNode) -> None:
        """Dial another node, again every two seconds until it is known."""
        if node.membership is None or node.membership.peer(through.peer_id) is not None:
            return
        if through.membership is None or through.left:  # another of the addresses that it was given
            through = self.rng.choice([other for other in self.up() if other is not node])
        node.heard_from[through.peer_id] = through.address
        self.perform(node, node.membership.link_up(self.now, through.peer_id, dialled=True))
        self.at(self.now + 2.0, self.join, node, through)

    def crash(self, node: SimNode) -> None:
        """The process is gone without a word."""
        node.membership = None
        self.by_address.pop(node.address, None)

    def leave(self, node: SimNode) -> None:
        """The node says goodbye; its process ends half a second later."""
        self.perform(node, node.running.leave(self.now, self.unix_ms))
        node.left = True
        self.at(self.now + 0.5, self.crash, node)

    def change_facts(self, node: SimNode, memory_bytes: int) -> PeerRecord:
        """The node has something new to say of itself."""
        facts = node.running.record.facts
        facts = replace(facts, capabilities=replace(facts.capabilities, memory_bytes=memory_bytes))
        self.perform(node, node.running.update(self.now, self.unix_ms, facts))
        return node.running.record

    def make_slow(self, node: SimNode, pause_s: tuple[float, float], awake_s: tuple[float, float]) -> None:
        """From now on the node's process stops and goes on, again and again."""

        def pause() -> None:
            self.pause(node, self.rng.uniform(*pause_s))
            self.at(node.paused_until + self.rng.uniform(*awake_s), pause)

        self.at(self.now + self.rng.uniform(*awake_s), pause)

    def pause(self, node: SimNode, seconds: float) -> None:
        """The node's process stops once; what arrives meanwhile waits."""
        node.paused_until = self.now + seconds
        self.at(node.paused_until, self._resume, node)

    def divide(self, nodes: Iterable[SimNode]) -> None:
        """Cut these nodes off from the rest."""
        for node in nodes:
            node.side = 1

    def heal(self) -> None:
        for node in self.nodes:
            node.side = 0

    @property
    def unix_ms(self) -> int:
        return UNIX_MS + int(self.now * 1000)

    # --- time

    def at(self, when: float, deed: Callable[..., None], *arguments: Any) -> None:
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, deed, arguments))

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; ends early where `until`, asked each simulated 100 ms, says so."""
        end, ask_at = self.now + seconds, self.now
        while self._heap and self._heap[0][0] <= end:
            if until is not None and self._heap[0][0] >= ask_at:
                if until():
                    return True
                ask_at = self._heap[0][0] + 0.1
            self.now, _, deed, arguments = heapq.heappop(self._heap)
            deed(*arguments)
        self.now = end
        return until is not None and until()

    def _arm(self, node: SimNode) -> None:
        at = node.running.next_tick()
        if at < node.tick_at:
            node.tick_at = at
            self.at(max(at, self.now), self._tick, node, at)

    def _tick(self, node: SimNode, at: float) -> None:
        if node.membership is None or node.tick_at != at:
            return
        node.tick_at = math.inf
        if self.now < node.paused_until:
            return
        self.perform(node, node.membership.tick(self.now))

    def _resume(self, node: SimNode) -> None:
        if node.membership is None:
            return
        backlog, node.backlog = node.backlog, []
        if self.rng.random() < 0.5:  # which of its sockets and deadlines a process serves first is open
            self.perform(node, node.membership.tick(self.now))
        for sender, address, message in backlog:
            self._hear(node, sender, address, message)
        node.tick_at = math.inf
        self._arm(node)

    # --- messages

    def perform(self, node: SimNode, actions: list[Action]) -> None:
        """Do what a node decided, as its driver would."""
        for action in actions:
            match action:
                case Send(peer, message):
                    self._send(node, peer, message)
                case Changed():
                    self.changes.append((self.now, node.index, action))
                case Issued(record):
                    node.stored_seq = record.seq
                case Forked():
                    self.forks.append((node.index, action))
                case Misbehaved():
                    self.misbehaved.append((node.index, action))
                case _:
                    pass
        if node.membership is not None:
            self._arm(node)

    def _send(self, node: SimNode, peer: PeerId, message: Wire) -> None:
        entry = node.running.peer(peer)
        addresses = entry.record.facts.addrs if entry is not None else ()
        address = addresses[0] if addresses else node.heard_from.get(peer, "")
        self.num_messages += 1
        if self.conditions.encoded:
            message = self._through_wire(message)
        copies = 1 + (self.rng.random() < self.conditions.duplicates)
        for _ in range(copies):
            delay_s = self.rng.uniform(*self.conditions.delay_s)
            if self.rng.random() >= self.conditions.loss:
                self.at(self.now + delay_s, self._deliver, node, node.address, address, peer, message)

    def _through_wire(self, message: Wire) -> Wire:
        if isinstance(message, Ping | Pong):
            return message
        data = cbor.encode(message.to_body())
        assert len(data) + ENVELOPE_BYTES <= MAX_CONTROL_FRAME_BYTES, (
            f"a {type(message).__name__} of {len(data)} bytes"
        )
        self.num_bytes += len(data) + ENVELOPE_BYTES
        return type(message).from_body(cbor.decode(data, MAX_CONTROL_FRAME_BYTES))

    def _deliver(self, sender: SimNode, reply_to: str, address: str, peer: PeerId, message: Wire) -> None:
        node = self.by_address.get(address)
        if node is None or node.membership is None or node.peer_id != peer or node.side != sender.side:
            return
        if self.now < node.paused_until:
            node.backlog.append((sender.peer_id, reply_to, message))
        else:
            self._hear(node, sender.peer_id, reply_to, message)

    def _hear(self, node: SimNode, sender: PeerId, reply_to: str, message: Wire) -> None:
        if node.membership is None:
            return
        node.heard_from[sender] = reply_to
        if isinstance(message, Ping | Pong):
            actions = node.membership.heard(self.now, sender)
            if isinstance(message, Ping):
                self._send(node, sender, Pong(0))
        else:
            actions = node.membership.receive(self.now, sender, message)
        self.perform(node, actions)

    # --- questions

    def up(self) -> list[SimNode]:
        return [node for node in self.nodes if node.membership is not None and not node.left]

    def state(self, observer: SimNode, subject: SimNode) -> State | None:
        entry = observer.running.peer(subject.peer_id)
        return None if entry is None else entry.state

    def disagreements(self, exact: bool = True) -> list[str]:
        """What running nodes believe wrongly; empty once the swarm has converged.

        Not exact: while messages are lost, somebody is always under suspicion for a moment, and about to refute it.
        """
        wrong: list[str] = []
        up = self.up()
        for observer in up:
            for subject in self.nodes:
                if subject is observer or subject.stored_seq == 0:
                    continue
                entry = observer.running.peer(subject.peer_id)
                held = "unknown" if entry is None else f"{entry.state.name} with seq {entry.record.seq}"
                if (
                    subject.left or subject.membership is None
                ):  # who was away when it left, found it dead or never met it
                    right = entry is None or entry.state >= State.DEAD
                else:
                    right = entry is not None and self._holds_for_up(entry, subject.running.record, exact)
                if not right:
                    wrong.append(f"node {observer.index} holds node {subject.index} for {held}")
        return wrong

    @staticmethod
    def _holds_for_up(entry: Entry, true: PeerRecord, exact: bool) -> bool:
        if exact:
            return entry.state is State.ALIVE and entry.record == true
        return entry.state <= State.SUSPECT and entry.record.facts == true.facts

    def converged(self) -> bool:
        up = self.up()
        return len({node.running.table_hash for node in up}) <= 1 and not self.disagreements()

    def deaths_of(self, subjects: Iterable[SimNode]) -> list[tuple[float, int, Changed]]:
        """Verdicts against these nodes, since `changes` was cleared."""
        peers = {node.peer_id for node in subjects}
        return [entry for entry in self.changes if entry[2].state is State.DEAD and entry[2].peer in peers]
