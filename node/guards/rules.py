"""Who becomes a guard, how long it stays one, and who replaces it. No I/O: time and random generator are arguments.

Every new guard is one more chance for an adversary to hold both sides of a lane, so speed does not matter here.
Guards keep their places for months, the place of an absent guard stays empty, and a new guard is drawn at random
among the best separated peers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence

from msgspec.structs import replace

from node.guards.book import MAX_LANES, MAX_MODELS, MAX_SEEN, SIDES, Guard, GuardBook, LanePlaces, Side
from node.guards.separation import Candidate, closeness
from protocol.identity import PeerId

DAY_S = 86400.0
LIFETIME_S = (180 * DAY_S, 360 * DAY_S)
"""A guard is kept for a time drawn between these two. Every change is a new chance for an adversary: with 10 % of the
peers dishonest, `scripts/exposure` gives 5 % for a lane in two years; with 60 to 120 days it would be 14 %."""
MAX_DOWN_S = 7 * DAY_S
"""A guard that was away for so long is replaced; only times when this node was up count."""
PROBATION_S = 1 * DAY_S
"""A peer that was first seen more recently cannot be a guard yet, unless this node's own memory is shorter."""
LOOK_GAP_S = 600.0
"""If two checks are further apart than this, this node itself was away, and no absence is counted."""
FORGET_S = 30 * DAY_S
"""A peer that was not seen for so long counts as new when it comes back."""
MAX_CONSIDERED = 48
"""Most candidates that are compared with each other; if there are more, so many are drawn at random."""


def look(book: GuardBook, present: Collection[PeerId], now: float) -> GuardBook:
    """Note which peers are connected and how long guards have been away."""
    gap_s = now - book.looked
    counted_s = gap_s if 0 <= gap_s <= LOOK_GAP_S else 0.0
    lanes = {
        model: tuple(
            LanePlaces(*(_aged(places.holder(side), present, counted_s) for side in SIDES)) for places in of_model
        )
        for model, of_model in book.lanes.items()
    }
    seen = {peer: times for peer, times in book.seen.items() if now - times[1] < FORGET_S}
    for peer_id in present:
        seen[peer_id] = (min(seen.get(peer_id, (now, now))[0], now), now)
    if len(seen) > MAX_SEEN:
        latest = sorted(seen, key=lambda peer_id: (seen[peer_id][1], -seen[peer_id][0]), reverse=True)
        seen = {peer_id: seen[peer_id] for peer_id in latest[:MAX_SEEN]}
    return replace(book, looked=now, lanes=lanes, seen=seen)


def must_go(guard: Guard, caught: Collection[PeerId], banned: Callable[[PeerId], bool], now: float) -> bool:
    """Whether a guard loses its place."""
    worn_out = now >= guard.until or guard.down_s >= MAX_DOWN_S
    return worn_out or guard.peer_id in caught or banned(guard.peer_id)


def is_known(book: GuardBook, peer_id: PeerId, now: float) -> bool:
    """Whether a peer has been known long enough to become a guard; a young book cannot tell and accepts everybody."""
    first = book.seen.get(peer_id, (now, now))[0]
    return now - first >= PROBATION_S or now - book.born < PROBATION_S


def choose(
    book: GuardBook,
    model_id: str,
    candidates: Sequence[Candidate],
    max_lanes: int,
    banned: Callable[[PeerId], bool],
    now: float,
    rng: random.Random,
) -> GuardBook:
    """Vacate places whose guards must go, then fill empty places if there are suitable peers.

    Args:
        candidates: connected peers that hold units of the model.
    """
    there = {candidate.peer_id: candidate for candidate in candidates}
    lanes = [_vacated(places, book.caught, banned, now) for places in book.lanes.get(model_id, ())]
    lanes += [LanePlaces()] * (min(max_lanes, MAX_LANES) - len(lanes))
    sides = replace(book, lanes={**book.lanes, model_id: tuple(lanes)}).roles()
    free = [
        candidate
        for candidate in candidates
        if candidate.peer_id not in book.caught
        and not banned(candidate.peer_id)
        and is_known(book, candidate.peer_id, now)
        and not any(candidate.peer_id in _holders(places) for places in lanes)
    ]
    free = rng.sample(free, MAX_CONSIDERED) if len(free) > MAX_CONSIDERED else free
    for index in range(min(max_lanes, len(lanes))):
        pair = _best_pair(lanes, index, there, free, sides, rng)
        if pair is None:
            continue
        lanes[index] = LanePlaces(
            *(
                lanes[index].holder(side) or Guard(chosen.peer_id, now, now + rng.uniform(*LIFETIME_S))
                for side, chosen in zip(SIDES, pair, strict=True)
            )
        )
        free = [candidate for candidate in free if candidate not in pair]
    while lanes and lanes[-1] == LanePlaces():
        lanes.pop()
    of_models = {**book.lanes, model_id: tuple(lanes)}
    while len(of_models) > MAX_MODELS:
        del of_models[next(model for model in of_models if model != model_id)]
    return replace(book, lanes=of_models)


def _aged(guard: Guard | None, present: Collection[PeerId], counted_s: float) -> Guard | None:
    if guard is None:
        return None
    return replace(guard, down_s=0.0 if guard.peer_id in present else guard.down_s + counted_s)


def _vacated(
    places: LanePlaces, caught: Collection[PeerId], banned: Callable[[PeerId], bool], now: float
) -> LanePlaces:
    kept = [places.holder(side) for side in SIDES]
    return LanePlaces(*(None if guard is None or must_go(guard, caught, banned, now) else guard for guard in kept))


def _holders(places: LanePlaces) -> set[PeerId]:
    return {guard.peer_id for side in SIDES if (guard := places.holder(side)) is not None}


def _best_pair(
    lanes: Sequence[LanePlaces],
    index: int,
    there: dict[PeerId, Candidate],
    free: Sequence[Candidate],
    sides: dict[PeerId, Side],
    rng: random.Random,
) -> tuple[Candidate, Candidate] | None:
    """The peers for a lane's two places: the best separated, and among these those with most uncovered units."""
    if all(lanes[index].holder(side) is not None for side in SIDES):
        return None
    options: list[list[Candidate]] = []
    for side in SIDES:
        holder = lanes[index].holder(side)
        if holder is None:
            options.append([candidate for candidate in free if sides.get(candidate.peer_id, side) == side])
        else:  # an absent guard keeps its place, and no peer can be compared with it
            options.append([there[holder.peer_id]] if holder.peer_id in there else [])
    covered = _covered(lanes, there)
    best: tuple[tuple[float, ...], tuple[Candidate, Candidate]] | None = None
    for pad in options[0]:
        for share in options[1]:
            common = pad.units & share.units
            if pad.peer_id == share.peer_id or not common:
                continue
            tried = sum(candidate.peer_id in sides for candidate in (pad, share))
            score = (closeness(pad, share), -len(common - covered), -len(common), -tried, rng.random())
            if best is None or score < best[0]:
                best = (score, (pad, share))
    return None if best is None else best[1]


def _covered(lanes: Sequence[LanePlaces], there: dict[PeerId, Candidate]) -> frozenset[bytes]:
    """Units that are covered by a lane whose two guards are both connected."""
    covered: frozenset[bytes] = frozenset()
    for places in lanes:
        pad, share = (there.get(guard.peer_id) if guard else None for guard in (places.pad, places.share))
        if pad is not None and share is not None:
            covered |= pad.units & share.units
    return covered
