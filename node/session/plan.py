"""The plan of a session, and the peers of which it is made. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from msgspec import Struct, field
from msgspec.structs import replace

from node.execution.lane import DEFAULT_MAX_LANES
from node.planning.cost import Cost
from node.planning.placement import ALL_HERE, LAYERS_LENT, Placement
from node.planning.spans import SpanOffer, SpanPlan
from node.privacy import Privacy
from node.transport.registry import ConnectedPeer
from protocol.identity import PeerId


class PadMaker(Enum):
    """Who makes the products of a session's pads: the only difference between modes."""

    NOBODY = "nobody"
    """No row leaves this device, or rows leave it without pads."""
    OWN = "own"
    """This device."""
    PEER = "peer"
    """The peer that the lane names."""
    PAIRED = "paired"
    """A paired device, which every lane names, or this device if that one is not available."""


class LanePlan(Struct, frozen=True):
    """One lane: the peer that gets the shares, and the peer that makes their pads."""

    share: PeerId
    pads: PeerId | None = None
    """None if no peer makes them."""
    stands_in: bool = False
    """Whether it is used only for units that no other lane can take."""

    @property
    def peers(self) -> tuple[PeerId, ...]:
        return (self.share,) if self.pads is None else (self.pads, self.share)


class SessionPlan(Struct, frozen=True):
    """The plan of a session."""

    mode: Privacy
    pad_maker: PadMaker = PadMaker.NOBODY
    lanes: tuple[LanePlan, ...] = ()
    placement: Placement = ALL_HERE
    """What the lanes compute."""
    spans: tuple[SpanPlan, ...] = ()
    """Layers that devices of the same owner compute, in order; what they leave out is computed here or by lanes."""
    lanes_mode: Privacy | None = None
    """The mode of the lanes, where devices of others compute what spans leave out; None: that of the plan."""
    notes: tuple[str, ...] = ()
    """Notes for the user, one sentence each."""
    cost: Cost | None = None
    """The expected cost; None if it was not predicted."""
    cost_here: Cost | None = None
    """The expected cost on this device alone; None if this device cannot compute it."""
    choices: tuple[tuple[Placement, Cost], ...] = ()
    """The expected cost of each possible placement."""

    @property
    def spanned(self) -> frozenset[int]:
        """Layers that devices of the same owner compute."""
        return frozenset(layer for span in self.spans for layer in span.layers)

    @property
    def outside(self) -> Privacy:
        """The mode whose rules hold for what devices of others see."""
        return self.lanes_mode or self.mode

    @property
    def shown(self) -> Placement:
        """The placement for people: whose spans are computed elsewhere, whose layers are lent."""
        lent = self.placement.lent | (LAYERS_LENT.lent if self.spans else frozenset())
        return Placement(frozenset(lent))

    @property
    def num_lanes(self) -> int:
        """The number of lanes, without stand-ins."""
        return sum(not lane.stands_in for lane in self.lanes)


class Candidates(Struct, frozen=True):
    """Peers that may take part in a session over one model, found at one moment."""

    places: tuple[PeerId | None, ...] = ()
    """Guards in their places: 2i and 2i + 1 form a lane in `split`; None is an empty place."""
    sharers: tuple[PeerId, ...] | None = None
    """Who may get shares if the pads are our own; None means the peers in the places."""
    paired: frozenset[PeerId] = field(default_factory=frozenset)
    """Devices of the same owner that hold the whole model (or a part of it, if this device is thin), named or not."""
    readers: frozenset[PeerId] = field(default_factory=frozenset)
    """Devices of the same owner that hold some of it and that the user allowed to read prompts."""
    readers_for_auto: frozenset[PeerId] = field(default_factory=frozenset)
    """Those of them that `auto` may choose."""
    offers: tuple[SpanOffer, ...] = ()
    """The readers that compute whole layers, and what each of them could compute."""
    num_layers: int = 0
    lacking: frozenset[int | None] = frozenset()
    """Layers of which some weights are not here; None is the head."""
    max_lanes: int = DEFAULT_MAX_LANES
    is_open: bool = False
    """Whether anybody may enter the swarm: `auto` then shows peers nothing that `strict` does not show."""
    thin: bool = False
    """Whether this device lacks weights: it can neither make pads nor compute what peers fail to compute."""
    named: bool = True
    """Whether the user chose the places; otherwise this node's guards hold them."""
    notes: tuple[str, ...] = ()
    """Notes about the choice of the places."""
    holders: Mapping[PeerId, ConnectedPeer] = field(default_factory=dict)
    """Peers that hold units of the model and are not leaving."""
    units: Mapping[PeerId, frozenset[bytes]] = field(default_factory=dict)
    """The units that each of them holds, if this device is thin."""

    @property
    def by_auto(self) -> Candidates:
        """The same where nobody reads whom `auto` may not choose."""
        allowed = tuple(offer for offer in self.offers if offer.peer_id in self.readers_for_auto)
        return replace(self, offers=allowed, readers=self.readers & self.readers_for_auto)

    @property
    def otherwise(self) -> str:
        """What happens to a request while the peers that it needs are missing, in words for the user."""
        return "waiting for them" if self.thin else "computed here"

    @property
    def present(self) -> tuple[PeerId, ...]:
        """Available peers that may get shares, in the order of their places."""
        if self.sharers is not None:
            return self.sharers
        return tuple(peer_id for peer_id in self.places if peer_id is not None)
