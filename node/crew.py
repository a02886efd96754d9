"""Who of the connected peers may take part in sessions over one model, and at which place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from node.formation import LanePlan
from node.store.unit import Unit
from node.transport.registry import ConnectedPeer, PeerRegistry
from protocol.identity import PeerId


@dataclass(frozen=True, slots=True)
class Muster:
    """The crew as it stands at one moment."""

    holders: dict[PeerId, ConnectedPeer] = field(default_factory=dict)
    """Peers that hold units of the model, and do not leave."""
    places: tuple[PeerId | None, ...] = ()
    """Guards in their places; None is a place that is empty now."""
    notes: tuple[str, ...] = ()


class Crew:
    """Musters the peers that hold units of one model.

    Args:
        named: peers in the order in which the user named them: the place decides who is a guard of what, so a peer
            that is missing leaves it empty.
        others: whether peers that nobody named follow, from the next lane on.
    """

    def __init__(
        self,
        registry: PeerRegistry,
        model_id: bytes,
        units: Sequence[Unit],
        named: Sequence[PeerId],
        others: bool,
    ) -> None:
        self._registry = registry
        self._model_id = model_id
        self._units = frozenset(unit.ref.sha256 for unit in units)
        self._named = tuple(dict.fromkeys(named))
        self._others = others

    def muster(self) -> Muster:
        """Look who is there now."""
        usable = self._registry.usable()
        holders = {peer.peer_id: peer for peer in usable if self._units & peer.hosts(self._model_id)}
        places: list[PeerId | None] = [peer_id if peer_id in holders else None for peer_id in self._named]
        if self._others:
            places += [None] * (len(places) % 2)
            places += sorted(holders.keys() - set(self._named))
        return Muster(holders, tuple(places))

    def whole_holders(self, muster: Muster) -> frozenset[PeerId]:
        """Peers that hold every unit of the model that may be lent out."""
        hosts = ((peer_id, peer.hosts(self._model_id)) for peer_id, peer in muster.holders.items())
        return frozenset(peer_id for peer_id, held in hosts if self._units <= held)

    def units_of(self, lane: LanePlan, muster: Muster) -> frozenset[bytes]:
        """Units that all peers of a lane hold."""
        held = [muster.holders[peer_id].hosts(self._model_id) for peer_id in lane.peers]
        return self._units.intersection(*held)
