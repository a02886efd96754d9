"""Decides how a session is formed: its mode, its lanes, who makes its pads, and the notes for the user. No I/O.

A new mode is a new function in `FORMERS`; `node.session.opening` opens the lanes that a plan names. A request never
falls to a weaker mode than it asked for: if the peers that it needs are missing, it is computed here, and the plan
says so.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from node.execution.lane import pair_guards
from node.planning.cost import Cost
from node.planning.placement import LAYERS_LENT, Placement
from node.planning.spans import choices, cut_spans
from node.privacy import Privacy
from node.session.plan import Candidates, LanePlan, PadMaker, SessionPlan
from protocol.identity import PeerId

Predict = Callable[[SessionPlan], Cost]
NONE: frozenset[bytes] = frozenset()
MAX_TURNED = 6
"""Most lanes whose roles may be exchanged: 64 combinations are compared."""


def form(
    asked: Privacy,
    candidates: Candidates,
    predict: Predict | None = None,
    new_tokens: int = 128,
    placements: Sequence[Placement] = (LAYERS_LENT,),
) -> SessionPlan:
    """The plan of a session for the requested mode.

    Args:
        new_tokens: the expected number of tokens of the answer.
        placements: what may be lent; of several, the one that is expected to be fastest is used.
        predict: predicts what a plan costs. `auto` offloads only if that is faster than this device alone, or if this
            device alone cannot compute it; a mode that the user named is used without such a comparison.
    """
    if asked is Privacy.AUTO and candidates.offers:
        return _with_spans(candidates.by_auto, predict, new_tokens, placements)
    here = SessionPlan(Privacy.LOCAL)
    nobody = not candidates.places and not candidates.present and not candidates.thin
    if asked is Privacy.LOCAL or (asked is Privacy.AUTO and nobody):
        return here
    mode = asked
    if asked is Privacy.AUTO:
        mode = Privacy.STRICT if candidates.is_open else Privacy.SPLIT
    plan = FORMERS[mode](candidates)
    if plan.spans and predict is not None:
        plan = _fastest_cut(plan, candidates, predict, new_tokens)
    if plan.mode is Privacy.LOCAL and candidates.thin:
        return _waiting(mode, plan.notes, placements[0])
    if plan.mode is Privacy.LOCAL:
        return replace(here, notes=plan.notes)
    # Predict only if there is a choice: measuring this device would delay the first answer.
    cost_here = predict(here) if predict is not None and not candidates.thin else None
    here = replace(here, cost=cost_here, cost_here=cost_here)
    if plan.spans and not plan.lanes:
        return replace(plan, cost_here=cost_here)
    if plan.num_lanes:
        plan = replace(_placed(plan, placements, predict, new_tokens), cost_here=cost_here)
    else:  # stand-ins alone: what they do not hold is borrowed, and how long that takes nobody can tell
        plan = replace(plan, placement=placements[0])
    if asked is Privacy.AUTO and plan.cost is not None and cost_here is not None:
        away_s, here_s = plan.cost.total_s(new_tokens), cost_here.total_s(new_tokens)
        if here_s <= away_s:
            return replace(here, notes=(_why_here(plan, new_tokens, here_s, away_s),))
    empty = candidates.places.count(None)
    if empty and plan.mode is not Privacy.TRUSTED:
        note = f"{empty} of {len(candidates.places)} places are empty: their lanes are not used"
        plan = replace(plan, notes=(*plan.notes, note))
    return plan


def _with_spans(
    candidates: Candidates, predict: Predict | None, new_tokens: int, placements: Sequence[Placement]
) -> SessionPlan:
    """The plan for `auto` if devices are there that the user lets read prompts: through them if that is faster than
    everything else that is possible."""
    plan = form(Privacy.AUTO, replace(candidates, offers=()), predict, new_tokens, placements)
    if not candidates.offers:
        return plan
    spans = form(Privacy.TRUSTED, candidates, predict, new_tokens, placements)
    if predict is None or not spans.spans:
        return plan
    if plan.num_lanes and spans.lanes:
        return _mixed(plan, candidates, predict, new_tokens)
    if candidates.thin and not plan.num_lanes:
        return spans  # of others only stand-ins are there, if anybody: how long they take nobody can tell
    cost = predict(plan) if plan.cost is None else plan.cost
    if spans.cost is not None and spans.cost.total_s(new_tokens) < cost.total_s(new_tokens):
        return spans
    return replace(plan, notes=(*plan.notes, _why_no_spans(spans, plan, cost, new_tokens)))


def _mixed(plan: SessionPlan, candidates: Candidates, predict: Predict, new_tokens: int) -> SessionPlan:
    """The plan, or one whose lanes compute only what own devices do not hold, if that is faster. Only `auto` asks for
    it: who names `trusted` means his own devices, who names another mode lets none of them read."""
    lanes = {peer_id for lane in plan.lanes for peer_id in lane.peers}
    attached = {
        peer_id for peer_id in lanes & candidates.holders.keys() if not candidates.holders[peer_id].data_endpoint
    }
    offers = tuple(offer for offer in candidates.offers if offer.peer_id not in attached)  # one connection, one use
    spans = cut_spans(range(candidates.num_layers), offers)
    if not spans:
        return plan
    mixed = replace(plan, mode=Privacy.TRUSTED, lanes_mode=plan.mode, spans=spans, cost=None, choices=())
    mixed = _fastest_cut(mixed, replace(candidates, offers=offers), predict, new_tokens)
    cost = predict(plan) if plan.cost is None else plan.cost
    return mixed if mixed.cost is not None and mixed.cost.total_s(new_tokens) < cost.total_s(new_tokens) else plan


def _why_no_spans(spans: SessionPlan, plan: SessionPlan, cost: Cost, new_tokens: int) -> str:
    seconds = 0.0 if spans.cost is None else spans.cost.total_s(new_tokens)
    where = "on this device alone" if plan.mode is Privacy.LOCAL else f"in {plan.mode.value}"
    return (
        f"auto: {new_tokens} tokens take about {cost.total_s(new_tokens):.2g} s {where} and about {seconds:.2g} s "
        "through your own devices: they are not used (--privacy trusted uses them)"
    )


def _fastest_cut(plan: SessionPlan, candidates: Candidates, predict: Predict, new_tokens: int) -> SessionPlan:
    """The plan with the cut of layers that is expected to be fastest; it says which devices are left out."""
    cuts = choices(range(candidates.num_layers), candidates.offers)
    plans = [replace(plan, spans=cut) for cut in cuts]
    costs = [predict(each) for each in plans]
    best = min(range(len(plans)), key=lambda index: costs[index].total_s(new_tokens))
    used = {span.peer_id for span in plans[best].spans}
    spare = sorted({span.peer_id for cut in cuts for span in cut} - used)
    notes = [f"{_called(peer_id, candidates)} is not used: with it the answer would take longer" for peer_id in spare]
    return replace(plans[best], cost=costs[best], notes=(*plan.notes, *notes))


def _called(peer_id: PeerId, candidates: Candidates) -> str:
    """What a device says that it is called, or the end of its PeerID."""
    peer = candidates.holders.get(peer_id)
    return (peer.hello.name if peer is not None else "") or f"…{peer_id[-6:]}"


def _waiting(mode: Privacy, notes: tuple[str, ...], placement: Placement) -> SessionPlan:
    """The plan while no peer is available that could compute what this device cannot."""
    makers = {Privacy.SPLIT: PadMaker.PEER, Privacy.STRICT: PadMaker.PAIRED}
    return SessionPlan(mode, makers.get(mode, PadMaker.NOBODY), (), placement, notes=notes)


def _placed(
    plan: SessionPlan, placements: Sequence[Placement], predict: Predict | None, new_tokens: int
) -> SessionPlan:
    """The plan with the fastest placement."""
    placed = [replace(plan, placement=placement) for placement in placements]
    if predict is None:
        return placed[0]
    costs = [predict(each) for each in placed]
    best = min(range(len(placed)), key=lambda index: costs[index].total_s(new_tokens))
    choices = tuple((each.placement, cost) for each, cost in zip(placed, costs, strict=True))
    return replace(placed[best], cost=costs[best], choices=choices)


def _why_here(plan: SessionPlan, new_tokens: int, here_s: float, away_s: float) -> str:
    return (
        f"auto: {new_tokens} tokens take about {here_s:.2g} s on this device alone and about {away_s:.2g} s "
        f"in {plan.mode.value} over {plan.num_lanes} lane{'s' * (plan.num_lanes > 1)}: computed here "
        f"(--privacy {plan.mode.value} forces it)"
    )


def _form_split(candidates: Candidates) -> SessionPlan:
    places = candidates.places
    if candidates.thin:  # stand-ins use only guards that lanes may have
        places = places[: 2 * candidates.max_lanes]
        places = _turned(places, candidates.units) if candidates.named else places
    lanes = tuple(LanePlan(share, pads) for pads, share in pair_guards(places, candidates.max_lanes))
    if candidates.thin:
        lanes += _stand_ins(places)
    if lanes:
        return SessionPlan(Privacy.SPLIT, PadMaker.PEER, lanes, notes=candidates.notes)
    if candidates.named:
        return _here(Privacy.SPLIT, "2 peers, named one after the other,", candidates)
    if len(candidates.present) < 2:
        return _here(Privacy.SPLIT, "2 peers of the swarm", candidates)
    guards = len(candidates.places) - candidates.places.count(None)
    note = (
        f"split needs both guards of one lane, {guards} of {len(candidates.places)} are there: {candidates.otherwise}"
    )
    return SessionPlan(Privacy.LOCAL, notes=(note, *candidates.notes))


def _turned(places: tuple[PeerId | None, ...], units: Mapping[PeerId, frozenset[bytes]]) -> tuple[PeerId | None, ...]:
    """The same pairs, with roles exchanged within a pair so that the lanes and their stand-ins cover most units. The
    pairs stay as the user chose them."""
    padded = (*places, *([None] * (len(places) % 2)))
    pairs = list(zip(padded[::2], padded[1::2], strict=True))[:MAX_TURNED]
    rest = padded[2 * len(pairs) :]

    def covered(turns: tuple[bool, ...]) -> int:
        turned = _apply(pairs, turns)
        lanes = [(pads, share) for pads, share in zip(turned[::2], turned[1::2], strict=True) if pads and share]
        lanes += [(lane.pads or lane.share, lane.share) for lane in _stand_ins(turned)]
        return len(frozenset[bytes]().union(*(units.get(a, NONE) & units.get(b, NONE) for a, b in lanes)))

    best = max(itertools.product((False, True), repeat=len(pairs)), key=covered)  # among equals: no exchange
    return (*_apply(pairs, best), *rest)


def _apply(pairs: Sequence[tuple[PeerId | None, PeerId | None]], turns: Sequence[bool]) -> tuple[PeerId | None, ...]:
    return tuple(peer for pair, turn in zip(pairs, turns, strict=True) for peer in (reversed(pair) if turn else pair))


def _stand_ins(places: Sequence[PeerId | None]) -> tuple[LanePlan, ...]:
    """Pairs each guard with the other side's guard of the next lane, for units that its own partner does not hold or
    can no longer compute. Roles stay: a peer that makes pads never gets a share."""
    pads, shares = places[::2], places[1::2]
    crossed = []
    for index in range(max(len(pads), len(shares))):
        for pad, share in ((index, index + 1), (index + 1, index)):
            pad_guard, share_guard = pads[pad % len(pads)], shares[share % len(shares)] if shares else None
            if pad_guard is not None and share_guard is not None:
                crossed.append(LanePlan(share_guard, pad_guard, stands_in=True))
    own = set(zip(pads, shares, strict=False))
    return tuple(lane for lane in dict.fromkeys(crossed) if (lane.pads, lane.share) not in own)


def _form_strict(candidates: Candidates) -> SessionPlan:
    if not candidates.present:
        return _here(Privacy.STRICT, "a peer", candidates)
    if candidates.thin:
        return _form_thin_strict(candidates)
    maker = _pad_maker(candidates)
    lanes = tuple(LanePlan(peer_id, maker) for peer_id in candidates.present if peer_id != maker)
    return SessionPlan(Privacy.STRICT, PadMaker.OWN if maker is None else PadMaker.PAIRED, lanes)


def _form_thin_strict(candidates: Candidates) -> SessionPlan:
    """Only paired devices make pads; each of them may hold a part of the model."""
    sharers = [peer_id for peer_id in candidates.present if peer_id not in candidates.paired]
    makers = sorted(candidates.paired)
    if not sharers and len(makers) > 1:  # all are paired: half of them compute shares
        makers, sharers = makers[::2], makers[1::2]
    lanes = tuple(LanePlan(share, maker) for share in sharers for maker in makers)
    if lanes:
        return SessionPlan(Privacy.STRICT, PadMaker.PAIRED, lanes)
    note = (
        "strict needs a paired device that holds the model and makes the pads, because this device does not hold its "
        f"weights, and another peer: {len(makers)} and {len(sharers)} found: {candidates.otherwise}"
    )
    return SessionPlan(Privacy.LOCAL, notes=(note,))


def _pad_maker(candidates: Candidates) -> PeerId | None:
    """A paired device that makes the pads and gets no shares, if another peer remains that gets them.

    A peer with both pads and shares of a session could read its rows, whoever owns it.
    """
    paired = sorted(candidates.paired, key=lambda peer_id: (peer_id in candidates.present, peer_id))
    return next((peer_id for peer_id in paired if set(candidates.present) - {peer_id}), None)


def _form_trusted(candidates: Candidates) -> SessionPlan:
    lanes = tuple(LanePlan(peer_id) for peer_id in sorted(candidates.readers))
    spans = cut_spans(range(candidates.num_layers), candidates.offers)
    covered = {layer for span in spans for layer in span.layers}
    if spans and covered >= candidates.lacking:
        return SessionPlan(Privacy.TRUSTED, PadMaker.NOBODY, (), spans=spans)
    if spans:
        return SessionPlan(Privacy.TRUSTED, PadMaker.NOBODY, lanes, spans=spans)
    if not lanes:
        note = (
            "trusted needs a paired device that holds this model and may read your prompt "
            f"(`kekahyde-node pair PEER --may-read-prompts`), none found: {candidates.otherwise}"
        )
        return SessionPlan(Privacy.LOCAL, notes=(note,))
    return SessionPlan(Privacy.TRUSTED, PadMaker.NOBODY, lanes)


def _here(asked: Privacy, needed: str, candidates: Candidates) -> SessionPlan:
    found = len(candidates.present)
    instead = "; strict works with one" if asked is Privacy.SPLIT and found == 1 and not candidates.thin else ""
    note = f"{asked.value} needs {needed} with this model, {found} found: {candidates.otherwise}{instead}"
    return SessionPlan(Privacy.LOCAL, notes=(note, *candidates.notes))


FORMERS: dict[Privacy, Callable[[Candidates], SessionPlan]] = {
    Privacy.SPLIT: _form_split,
    Privacy.STRICT: _form_strict,
    Privacy.TRUSTED: _form_trusted,
}
