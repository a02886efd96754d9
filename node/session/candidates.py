"""Which connected peers may take part in sessions over one model, and in which places."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from node.guards.separation import Candidate
from node.kernels import has_same_floats
from node.model.unit import UnitRef
from node.node import AGENT, Node
from node.planning.spans import SpanOffer
from node.serving.hosting import whole_layers
from node.session.plan import Candidates, LanePlan
from node.store.stored import StoredModel
from node.transport.registry import ConnectedPeer
from protocol.identity import PeerId
from protocol.link.hello import WorkKind


class CandidateFinder:
    """Finds the peers that hold units of one model.

    Args:
        named: peers in the order in which the user named them. The place decides who is a guard of what, so the place
            of a missing peer stays empty. None: this node chooses and keeps its own guards.
        others: whether peers that nobody named come after the named ones, from the next lane on.
    """

    def __init__(
        self, node: Node, model: StoredModel, named: Sequence[PeerId] | None, others: bool, max_lanes: int
    ) -> None:
        self._node = node
        self._model = model
        self._model_id = model.model_id_bytes
        self._lacking = frozenset(ref.layer for ref in model.units if not model.holds(ref))
        self._units = frozenset(ref.sha256 for ref in model.units)
        self._thin = not model.is_whole
        self._layer_units = frozenset(ref.sha256 for ref in model.units if ref.layer is not None)
        self._named = None if named is None else tuple(dict.fromkeys(named))
        self._others = others
        self._max_lanes = max_lanes

    def find(self, with_guards: bool) -> Candidates:
        """Find the peers that are available now.

        Args:
            with_guards: whether lanes of two guards are needed; otherwise nobody becomes a guard.
        """
        usable, devices = self._node.registry.usable(), self._node.trust.devices
        working = (peer for peer in usable if WorkKind.LINEAR in peer.hello.work and peer.works)
        holders = {peer.peer_id: peer for peer in working if self._held_by(peer)}
        whole = {peer_id for peer_id, peer in holders.items() if self._held_by(peer) >= self._layer_units}
        found = Candidates(
            offers=self.offers(),
            num_layers=self._model.config.num_layers,
            lacking=self._lacking,
            paired=devices.peer_ids & (holders.keys() if self._thin else whole),
            thin=self._thin,
            readers=devices.readers & holders.keys(),
            readers_for_auto=devices.readers_for_auto,
            max_lanes=self._max_lanes,
            is_open=self._node.is_open,
            named=self._named is not None,
            holders=holders,
            units={peer_id: self._held_by(peer) for peer_id, peer in holders.items()} if self._thin else {},
        )
        if self._named is None:
            found = replace(found, sharers=tuple(sorted(holders)))
            return self._with_guards(found, usable) if with_guards else found
        places: list[PeerId | None] = [peer_id if peer_id in holders else None for peer_id in self._named]
        if self._others:
            places += [None] * (len(places) % 2)
            places += sorted(holders.keys() - set(self._named))
        return replace(found, places=tuple(places), sharers=tuple(peer for peer in places if peer is not None))

    def offers(self) -> tuple[SpanOffer, ...]:
        """Devices that the user lets read prompts, and the layers that each could compute now. Their floats are those
        of this device only if they run the same version."""
        if not has_same_floats(self._node.kernels):
            return ()  # their results would differ from those of this device in the last bit
        devices, measures = self._node.trust.devices, self._node.registry.measures
        readers = devices.readers
        offers = []
        for peer in self._node.registry.usable():
            if peer.peer_id not in readers or WorkKind.SPAN not in peer.hello.work or not peer.works:
                continue
            layers = whole_layers(self._model.manifest, self._refs_of(peer)) - {self._model.config.num_layers}
            if peer.hello.agent == AGENT and layers:
                figures = measures.of(peer.peer_id).figures
                offers.append(SpanOffer(peer.peer_id, frozenset(layers), figures))
        return tuple(sorted(offers, key=lambda offer: offer.peer_id))

    def _refs_of(self, peer: ConnectedPeer) -> list[UnitRef]:
        held = self._held_by(peer)
        return [ref for ref in self._model.units if ref.sha256 in held]

    def _with_guards(self, found: Candidates, usable: Sequence[ConnectedPeer]) -> Candidates:
        candidates = [self._candidate(peer) for peer in found.holders.values()]
        present = {peer.peer_id for peer in usable}
        chosen = self._node.guards.places(self._model_id.hex(), candidates, present, self._max_lanes)
        return replace(found, places=chosen.places, notes=chosen.notes)

    def _candidate(self, peer: ConnectedPeer) -> Candidate:
        is_paired = peer.peer_id in self._node.trust.devices.peer_ids
        return Candidate(peer.peer_id, peer.host, peer.hello.operator, is_paired, self._held_by(peer))

    def _held_by(self, peer: ConnectedPeer) -> frozenset[bytes]:
        """Units of the model that a peer holds."""
        return self._units & peer.hosts(self._model_id)

    def units_of(self, lane: LanePlan, found: Candidates) -> frozenset[bytes]:
        """Units that all peers of a lane hold; none if one of them has left since the lane was planned."""
        holders = [found.holders.get(peer_id) for peer_id in lane.peers]
        return self._units.intersection(*(frozenset() if peer is None else self._held_by(peer) for peer in holders))
