"""Who is connected: written by the control plane, read by every other thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from enum import Enum

from msgspec import Struct, field
from msgspec.structs import replace

from node.measures.peers import Measures
from protocol.identity import PeerId, curve_public_key_of, peer_id_of
from protocol.link.hello import Hello
from protocol.membership.records import PublishedModel

FAREWELL_S = 10.0
"""How long this node waits for answers of a peer that said goodbye."""
MAX_FAREWELLS = 1024
MAX_OUTCOMES = 1024
MAX_ROUTES_A_PEER = 4


class DialState(Enum):
    """How far a dialled address has come."""

    CONNECTING = "connecting"
    UP = "up"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"


class DialOutcome(Struct, frozen=True):
    """What became of one dialled address; `reason` is one sentence unless it is up."""

    address: str
    state: DialState
    reason: str = ""
    peer_id: PeerId | None = None


class ConnectedPeer(Struct, frozen=True):
    """A peer whose hello was accepted."""

    peer_id: PeerId
    hello: Hello
    host: str
    """Where its connection leads, in ZeroMQ's form (an IPv6 host in brackets)."""
    dialled: bool
    rtt_s: float | None = None
    clock_ahead_s: float | None = None
    """Its clock against ours when its hello came; None where it does not say."""
    announced: Mapping[bytes, frozenset[bytes]] = field(default_factory=dict)
    """Units by model that its newest record announces, beside those of its hello."""
    leaving: Mapping[bytes, frozenset[int]] = field(default_factory=dict)
    """Layers by model that its newest record says it will drop; the head is the one after the last."""
    memory_bytes: int = 0
    """Memory that its newest record says it lends to weights."""
    works: bool = True
    """Whether its newest record says that it computes for others now."""
    published: tuple[PublishedModel, ...] | None = None
    """Models that it asks its swarm to hold, as its newest record says; None: no record of it came yet."""

    @property
    def data_endpoint(self) -> str | None:
        """ZeroMQ endpoint of its data plane, or None where it can only dial out."""
        return f"tcp://{self.host}:{self.hello.data_port}" if self.hello.data_port else None

    def hosts(self, model_id: bytes) -> frozenset[bytes]:
        """Hashes of the units of a model that it says it holds."""
        first = frozenset(unit for model in self.hello.hosted if model.model_id == model_id for unit in model.units)
        return first | self.announced.get(model_id, frozenset())

    def stated(self, model_id: bytes) -> frozenset[bytes]:
        """As `hosts`, without what its hello said and its newest record no longer says."""
        announced = self.announced.get(model_id)
        return self.hosts(model_id) if announced is None else announced

    def serves(self, model_id: bytes) -> bool:
        """Whether it holds any part of a model, even where it is not known which."""
        return model_id in self.announced or any(model.model_id == model_id for model in self.hello.hosted)


class _Farewell(Struct, frozen=True):
    """A peer that said goodbye, as it was."""

    peer: ConnectedPeer
    curve_key: bytes
    route: bytes | None
    """Of the connection over which it served."""
    until: float
    """Until then its last answers may come, and its last requests are answered."""


class PeerRegistry:
    """Thread-safe table of connected peers and dial outcomes. One PeerID for each CURVE key."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._peers: dict[PeerId, ConnectedPeer] = {}
        self._by_curve_key: dict[bytes, PeerId] = {}
        self._attached: dict[PeerId, list[bytes]] = {}
        """Routes of the connections over which a peer serves, the newest last; two devices may have its identity."""
        self._outcomes: dict[str, DialOutcome] = {}
        self._farewells: dict[PeerId, _Farewell] = {}
        self._doubled: dict[PeerId, tuple[str, ...]] = {}
        self.measures = Measures()
        self.version = 0
        """Grows whenever a peer comes, goes or says goodbye."""
        self.on_link_end: Callable[[], None] = lambda: None
        """Called when a link has ended, in the thread that saw it."""

    def up(self, peer: ConnectedPeer) -> bool:
        """A hello was accepted (again); False where the other of the two identities of its CURVE key is here."""
        with self._changed:
            key = curve_public_key_of(peer.hello.public_key)
            known = self._by_curve_key.get(key)
            if known is not None and known != peer.peer_id:
                return False  # the first stays
            before = self._peers.get(peer.peer_id)
            one_device = before is None or not are_two_devices(before.hello, peer.hello)
            if before is not None and before.dialled and not peer.dialled and one_device:
                peer = replace(peer, host=before.host, dialled=True, rtt_s=before.rtt_s)
            self._peers[peer.peer_id] = peer
            self._farewells.pop(peer.peer_id, None)
            self.version += 1
            self.measures.of(peer.peer_id).stated_macs_per_s = float(peer.hello.macs_per_s)
            self._by_curve_key[key] = peer.peer_id
            self._changed.notify_all()
            return True

    def stays(self, peer: ConnectedPeer) -> None:
        """One link of a peer ended; another stands, over which its hello said this."""
        with self._changed:
            before = self._peers.get(peer.peer_id)
            if before is not None:
                self._peers[peer.peer_id] = replace(
                    peer,
                    rtt_s=before.rtt_s,
                    announced=before.announced,
                    leaving=before.leaving,
                    memory_bytes=before.memory_bytes,
                    works=before.works,
                    published=before.published,
                )
                self.version += 1
                self._changed.notify_all()

    def doubled(self, peer_id: PeerId, hosts: tuple[str, ...]) -> None:
        """Two devices at these hosts have one identity; none: no longer."""
        with self._changed:
            if hosts:
                self._doubled[peer_id] = hosts
            else:
                self._doubled.pop(peer_id, None)

    @property
    def doubles(self) -> dict[PeerId, tuple[str, ...]]:
        """Identities that more than one connected device has, and the hosts of these devices."""
        with self._changed:
            return dict(self._doubled)

    def leave(self, peer_id: PeerId) -> None:
        """A peer said goodbye: it gets nothing new, but what it was asked before is still answered."""
        with self._changed:
            peer = self._peers.get(peer_id)
            if peer is not None:
                key, until = curve_public_key_of(peer.hello.public_key), time.monotonic() + FAREWELL_S
                self._farewells[peer_id] = _Farewell(peer, key, self._newest_route(peer_id), until)
                if len(self._farewells) > MAX_FAREWELLS:
                    del self._farewells[next(iter(self._farewells))]
                self.version += 1
                self._changed.notify_all()

    def is_leaving(self, peer_id: PeerId) -> bool:
        """Whether it said goodbye and has not come back since."""
        with self._changed:
            return peer_id in self._farewells

    def expel(self, peer_id: PeerId) -> None:
        """A peer is no longer wanted: from now on none of its requests are answered, whatever it said before."""
        self.down(peer_id)
        with self._changed:
            self._farewells.pop(peer_id, None)

    def down(self, peer_id: PeerId) -> None:
        """The link to a peer is gone."""
        with self._changed:
            self.version += 1
            peer = self._peers.pop(peer_id, None)
            self._attached.pop(peer_id, None)
            if peer is not None:
                self._by_curve_key.pop(curve_public_key_of(peer.hello.public_key), None)
            self._changed.notify_all()

    def measured(self, peer_id: PeerId, rtt_s: float, queued: int | None = None) -> None:
        """A ping came back; some say how many requests wait there."""
        self.measures.of(peer_id).ponged(rtt_s, queued)
        with self._changed:
            peer = self._peers.get(peer_id)
            if peer is not None:
                self._peers[peer_id] = replace(peer, rtt_s=rtt_s)

    def announce(
        self,
        peer_id: PeerId,
        announced: Mapping[bytes, frozenset[bytes]],
        leaving: Mapping[bytes, frozenset[int]] | None = None,
        memory_bytes: int = 0,
        works: bool = True,
        published: tuple[PublishedModel, ...] = (),
    ) -> None:
        """A peer's newest record says that it holds these units, by model, and no others.

        Args:
            leaving: layers by model that it will drop.
            memory_bytes: memory that it lends to weights.
            works: whether it computes for others now.
            published: models that it asks its swarm to hold.
        """
        with self._changed:
            peer = self._peers.get(peer_id)
            if peer is None:
                return
            news = replace(
                peer,
                announced=dict(announced),
                leaving=dict(leaving or {}),
                memory_bytes=memory_bytes,
                works=works,
                published=published,
            )
            self._peers[peer_id] = news
            if peer.announced != news.announced:
                self.version += 1
                self._changed.notify_all()

    def attach(self, curve_key: bytes, route: bytes) -> bool:
        """A peer opened a data connection over which it serves; `route` is its ROUTER id here."""
        with self._changed:
            peer_id = self._by_curve_key.get(curve_key)
            if peer_id is None:
                return False
            if self._newest_route(peer_id) != route:  # said again, it is no news for sessions
                routes = [known for known in self._attached.get(peer_id, []) if known != route]
                self._attached[peer_id] = [*routes[-MAX_ROUTES_A_PEER + 1 :], route]
                self.version += 1
                self._changed.notify_all()
            return True

    def detach(self, peer_id: PeerId, route: bytes) -> bool:
        """A connection over which a peer served has ended; returns whether it was known here."""
        with self._changed:
            before = self._attached.pop(peer_id, [])
            routes = [known for known in before if known != route]
            if routes:
                self._attached[peer_id] = routes
            self.version += 1
            self._changed.notify_all()
            return len(routes) < len(before)

    def _newest_route(self, peer_id: PeerId) -> bytes | None:
        routes = self._attached.get(peer_id)
        return routes[-1] if routes else None

    def outcome(self, outcome: DialOutcome) -> None:
        """News of a dialled address."""
        with self._changed:
            self._outcomes.pop(outcome.address, None)
            self._outcomes[outcome.address] = outcome
            if len(self._outcomes) > MAX_OUTCOMES:  # peers may have ever new addresses
                del self._outcomes[next(iter(self._outcomes))]
            self._changed.notify_all()

    def by_curve_key(self, curve_key: bytes) -> ConnectedPeer | None:
        with self._changed:
            peer_id = self._by_curve_key.get(curve_key)
            if peer_id is not None:
                return self._peers.get(peer_id)
            now = time.monotonic()
            left = (each for each in self._farewells.values() if each.curve_key == curve_key and each.until > now)
            farewell = next(left, None)
            return None if farewell is None else farewell.peer

    def is_heard(self, peer_id: PeerId) -> bool:
        """Whether a peer is here, or left a moment ago: only then are its requests answered."""
        with self._changed:
            farewell = self._farewells.get(peer_id)
            return peer_id in self._peers or (farewell is not None and farewell.until > time.monotonic())

    def route_of(self, peer_id: PeerId) -> bytes | None:
        """ROUTER id of a peer that attached itself, if it did."""
        with self._changed:
            if peer_id in self._attached or peer_id not in self._farewells:
                return self._newest_route(peer_id)
            farewell = self._farewells[peer_id]
            return farewell.route if farewell.until > time.monotonic() else None

    def peers(self) -> list[ConnectedPeer]:
        with self._changed:
            return list(self._peers.values())

    def peer(self, peer_id: PeerId) -> ConnectedPeer | None:
        """The connected peer of this id."""
        with self._changed:
            return self._peers.get(peer_id)

    def outcomes(self) -> list[DialOutcome]:
        with self._changed:
            return list(self._outcomes.values())

    def usable(self) -> list[ConnectedPeer]:
        """Peers whose data plane can be reached, by dialling or because they attached."""
        with self._changed:
            staying = [peer for peer in self._peers.values() if peer.peer_id not in self._farewells]
            return [peer for peer in staying if peer.hello.data_port or peer.peer_id in self._attached]

    def wait_up(self, peer_id: PeerId, timeout_s: float) -> bool:
        """Whether this peer is connected before the time is over."""
        with self._changed:
            return self._changed.wait_for(lambda: peer_id in self._peers, timeout_s)

    def wait_settled(self, addresses: list[str], num_usable: int, timeout_s: float) -> None:
        """Return once every address has an outcome and `num_usable` peers are there, or when the time is over."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                pending = [a for a in addresses if self._state(a) is DialState.CONNECTING]
                left = deadline - time.monotonic()
                if (not pending and len(self.usable()) >= num_usable) or left <= 0:
                    return
                self._changed.wait(left)

    def _state(self, address: str) -> DialState:
        outcome = self._outcomes.get(address)
        return DialState.CONNECTING if outcome is None else outcome.state


def are_two_devices(first: Hello, second: Hello) -> bool:
    """Whether hellos of one identity, over links that stand at the same time, can only be of two processes: the data
    port of a process stays, and so does some address of a device."""
    one, other = set(first.addrs), set(second.addrs)
    return first.data_port != second.data_port or (bool(one and other) and one.isdisjoint(other))


def peer_of_hello(hello: Hello, host: str, dialled: bool) -> ConnectedPeer:
    """The connected peer that an accepted hello describes."""
    ahead_s = hello.clock_ms / 1000 - time.time() if hello.clock_ms else None
    return ConnectedPeer(peer_id_of(hello.public_key), hello, host, dialled, clock_ahead_s=ahead_s)
