"""How a session is formed, decided purely: its mode, its lanes, who makes its pads, and what the user is told.

A new mode is a new function in `FORMERS`; opening the lanes that a plan names is `node.opening`'s part.
A request never falls to a weaker mode than it asked for: where the peers that it needs are missing, it is computed
here, and the plan says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum

from node.execution.lanes import DEFAULT_MAX_LANES, pair_guards
from node.privacy import Privacy
from protocol.identity import PeerId


class PadMaker(Enum):
    """Who makes the products of a session's pads: the one thing in which modes differ."""

    NOBODY = "nobody"
    """No row leaves this device, or it leaves without a pad."""
    OWN = "own"
    """This device."""
    PEER = "peer"
    """The peer that the lane names."""


@dataclass(frozen=True, slots=True)
class LanePlan:
    """One lane: who gets the shares, and which peer makes their pads."""

    share: PeerId
    pads: PeerId | None = None
    """None where no peer makes them."""

    @property
    def peers(self) -> tuple[PeerId, ...]:
        return (self.share,) if self.pads is None else (self.pads, self.share)


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """What a session is to be."""

    mode: Privacy
    pad_maker: PadMaker = PadMaker.NOBODY
    lanes: tuple[LanePlan, ...] = ()
    notes: tuple[str, ...] = ()
    """What the user is told, one sentence each."""


@dataclass(frozen=True, slots=True)
class Offer:
    """The peers that hold the model, as far as they may take part."""

    places: tuple[PeerId | None, ...] = ()
    """Guards in their places: 2i and 2i + 1 make a lane in `split`; None is a place that is empty now."""
    paired: frozenset[PeerId] = field(default_factory=frozenset)
    """Devices of the same owner among the peers."""
    max_lanes: int = DEFAULT_MAX_LANES

    @property
    def present(self) -> tuple[PeerId, ...]:
        """Peers that are there, in the order of their places."""
        return tuple(peer_id for peer_id in self.places if peer_id is not None)


def form(asked: Privacy, offer: Offer) -> SessionPlan:
    """The plan of a session that was asked for in this mode."""
    if asked is Privacy.LOCAL or (asked is Privacy.AUTO and not offer.places):
        return SessionPlan(Privacy.LOCAL)
    wanted = Privacy.SPLIT if asked is Privacy.AUTO else asked
    plan = FORMERS[wanted](offer)
    empty = len(offer.places) - len(offer.present)
    if empty and plan.mode is not Privacy.LOCAL:
        note = f"{empty} of {len(offer.places)} places are empty: their lanes are not used"
        plan = replace(plan, notes=(*plan.notes, note))
    return plan


def _form_split(offer: Offer) -> SessionPlan:
    lanes = tuple(LanePlan(share, pads) for pads, share in pair_guards(offer.places, offer.max_lanes))
    if not lanes:
        return _here(Privacy.SPLIT, "2 peers, named one after the other,", offer)
    return SessionPlan(Privacy.SPLIT, PadMaker.PEER, lanes)


def _form_strict(offer: Offer) -> SessionPlan:
    lanes = tuple(LanePlan(peer_id) for peer_id in offer.present)
    if not lanes:
        return _here(Privacy.STRICT, "a peer", offer)
    return SessionPlan(Privacy.STRICT, PadMaker.OWN, lanes)


def _here(asked: Privacy, needed: str, offer: Offer) -> SessionPlan:
    note = f"{asked.value} needs {needed} that hold this model, {len(offer.present)} found: computed here"
    return SessionPlan(Privacy.LOCAL, notes=(note,))


FORMERS: dict[Privacy, Callable[[Offer], SessionPlan]] = {
    Privacy.SPLIT: _form_split,
    Privacy.STRICT: _form_strict,
}
