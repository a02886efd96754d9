"""Who of the connected peers may take part in sessions over one model, and at which place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from node.guards.separation import Candidate
from node.node import Node
from node.session.formation import LanePlan
from node.store.stored import StoredModel
from node.transport.registry import ConnectedPeer
from protocol.identity import PeerId
from protocol.link.hello import WorkKind


@dataclass(frozen=True, slots=True)
class Muster:
    """The crew as it stands at one moment."""

    holders: dict[PeerId, ConnectedPeer] = field(default_factory=dict)
    """Peers that hold units of the model, and do not leave."""
    places: tuple[PeerId | None, ...] = ()
    """Guards in their places; None is a place that is empty now."""
    sharers: tuple[PeerId, ...] = ()
    """Who may get shares where pads are our own."""
    notes: tuple[str, ...] = ()


class Crew:
    """Musters the peers that hold units of one model.

    Args:
        named: peers in the order in which the user named them: the place decides who is a guard of what, so a peer
            that is missing leaves it empty. None: guards are chosen and kept by this node.
        others: whether peers that nobody named follow those that were, from the next lane on.
    """

    def __init__(
        self, node: Node, model: StoredModel, named: Sequence[PeerId] | None, others: bool, max_lanes: int
    ) -> None:
        self._node = node
        self._model_id = model.model_id_bytes
        self._units = frozenset(ref.sha256 for ref in model.units if ref.kind != "head")
        self._named = None if named is None else tuple(dict.fromkeys(named))
        self._others = others
        self._max_lanes = max_lanes

    def muster(self, with_guards: bool) -> Muster:
        """Look who is there now.

        Args:
            with_guards: whether lanes of two are wanted; else nobody is made a guard.
        """
        usable = self._node.registry.usable()
        working = (peer for peer in usable if WorkKind.LINEAR in peer.hello.work)
        holders = {peer.peer_id: peer for peer in working if self._units & peer.hosts(self._model_id)}
        if self._named is None:
            return self._guarded(holders, usable) if with_guards else Muster(holders, sharers=tuple(sorted(holders)))
        places: list[PeerId | None] = [peer_id if peer_id in holders else None for peer_id in self._named]
        if self._others:
            places += [None] * (len(places) % 2)
            places += sorted(holders.keys() - set(self._named))
        sharers = tuple(peer_id for peer_id in places if peer_id is not None)
        return Muster(holders, tuple(places), sharers)

    def _guarded(self, holders: dict[PeerId, ConnectedPeer], usable: Sequence[ConnectedPeer]) -> Muster:
        candidates = [self._candidate(peer) for peer in holders.values()]
        present = {peer.peer_id for peer in usable}
        chosen = self._node.guards.places(self._model_id.hex(), candidates, present, self._max_lanes)
        return Muster(holders, chosen.places, tuple(sorted(holders)), chosen.notes)

    def _candidate(self, peer: ConnectedPeer) -> Candidate:
        held = self._units & peer.hosts(self._model_id)
        is_paired = peer.peer_id in self._node.trust.devices.peer_ids
        return Candidate(peer.peer_id, peer.host, peer.hello.operator, is_paired, held)

    def whole_holders(self, muster: Muster) -> frozenset[PeerId]:
        """Peers that hold every unit of the model that may be lent out."""
        hosts = ((peer_id, peer.hosts(self._model_id)) for peer_id, peer in muster.holders.items())
        return frozenset(peer_id for peer_id, held in hosts if self._units <= held)

    def units_of(self, lane: LanePlan, muster: Muster) -> frozenset[bytes]:
        """Units that all peers of a lane hold; none where one of them has left since the lane was planned."""
        holders = [muster.holders.get(peer_id) for peer_id in lane.peers]
        held = [peer.hosts(self._model_id) if peer is not None else frozenset[bytes]() for peer in holders]
        return self._units.intersection(*held)
