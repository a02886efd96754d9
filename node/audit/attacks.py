"""All attacks on what was seen in one session, as each peer, as those of one role, and as everybody together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from node.audit.distinguisher import Pair, likelihood, repeated
from node.audit.findings import Finding, at_least, by_chance, no_more, percent
from node.audit.inversion import Candidates, FirstRows, Ranks, match_vocabulary, nearest_tokens
from node.audit.reuse import near_pairs
from node.audit.statistics import at_least_one
from node.audit.truth import Place, SentRows
from node.audit.uniformity import uniformity
from node.audit.views import View, noise_like, plain_like
from node.model.unit import UnitRef

NEARLY_ALL = 0.99
MOST = 0.95
"""What vocabulary matching and rows seen before must reach. A row that was not sent the first time was not seen."""
NEAREST, LIKELIHOOD, REPEATED = "nearest token", "two texts, by the weights", "two texts, by rows seen before"
UNIFORM, REUSE = "uniform", "rows under one pad"


class Knowledge(Struct):
    """What the attackers know, and what the audit knows besides."""

    first_unit: UnitRef
    table: FirstRows
    depths: Mapping[str, UnitRef]
    """Units at which the vocabulary is matched, by what the table calls them."""
    candidates: Mapping[Place, Candidates]
    texts: Mapping[int, Sequence[int]]
    pair: Pair
    sent: SentRows
    generator: np.random.Generator


def attack(alone: Sequence[View], together: Sequence[View], known: Knowledge) -> list[Finding]:
    """Attack views that must look like noise. Of each attack, the findings of all views count together.

    Args:
        alone: what each peer has seen.
        together: what all peers of one role have seen; here all pairs of rows are compared.
    """
    alone, together = ([view for view in views if view.num_rows] for views in (alone, together))
    views, units = [*alone, *together], {known.first_unit, *known.depths.values()}
    noise = [noise_like(view, units, known.generator) for view in views]
    found = []
    named = [view.name for view in views]
    ranked = {what: [inversion(view, what, known) for view in views] for what in inversions(known)}
    chance = {what: [inversion(view, what, known) for view in noise] for what in inversions(known)}
    for what in inversions(known):
        if any(ranks is not None for ranks in ranked[what]):
            found.append(_inverted(what, named, ranked[what], chance[what]))
    for what, told in ((LIKELIHOOD, _likelihood), (REPEATED, _repeated)):
        seen = [(name, told(view, known)) for name, view in zip(named, views, strict=True)]
        areas = {name: area for name, area in seen if area is not None}
        if areas:
            most = max(areas.values(), key=lambda area: area.count)
            text = f"{most.value:.3f} ({most.low:.3f}–{most.high:.3f})"
            figures = {name: [area.value, area.low, area.high, area.count] for name, area in areas.items()}
            found.append(by_chance(what, at_least_one([area.p for area in areas.values()]), text, figures))
    found.append(_uniform(alone, known))
    found.append(_reused(together))
    return found


def control(plain: View, known: Knowledge, name: str) -> list[Finding]:
    """The same attacks where they must succeed."""
    found = []
    for what in inversions(known):
        ranks = inversion(plain, what, known)
        if ranks is not None:
            least = NEARLY_ALL if what == NEAREST else MOST
            found.append(at_least(f"{what}, {name}", ranks.share, least, ranks.as_json()))
    for what, told in ((LIKELIHOOD, _likelihood), (REPEATED, _repeated)):
        area = told(plain, known)
        if area is not None:
            least = NEARLY_ALL if what == LIKELIHOOD else MOST
            found.append(at_least(f"{what}, {name}", area.value, least, {"rows": area.count}))
    tested = uniformity(plain, known.sent)
    not_uniform = 0.0 if tested is None else float(tested.p < 1e-4)
    found.append(at_least(f"not {UNIFORM}, {name}", not_uniform, 1.0))
    pairs = near_pairs(plain)
    found.append(at_least(f"{REUSE}, {name}", float(pairs.found), 1.0, pairs.as_json()))
    return found


def inversions(known: Knowledge) -> list[str]:
    """The attacks that look for tokens."""
    return [NEAREST, *known.depths]


def inversion(view: View, what: str, known: Knowledge) -> Ranks | None:
    """The ranks of true tokens in one of these attacks; None if the view has no rows for it."""
    if what == NEAREST:
        return nearest_tokens(view, known.first_unit, known.texts, known.table)
    return match_vocabulary(view, known.depths[what], known.candidates)


def plain_rows(view: View, known: Knowledge) -> View:
    """The true rows of a view."""
    return plain_like(view, known.sent)


def _likelihood(view: View, known: Knowledge) -> Any:
    return likelihood(view, known.pair, known.sent)


def _repeated(view: View, known: Knowledge) -> Any:
    return repeated(view, known.pair)


def _inverted(
    what: str, named: Sequence[str], seen: Sequence[Ranks | None], noise: Sequence[Ranks | None]
) -> Finding:
    both = [
        (name, ranks, chance)
        for name, ranks, chance in zip(named, seen, noise, strict=True)
        if ranks is not None and chance is not None
    ]
    p = at_least_one([ranks.p_against(chance) for _name, ranks, chance in both])
    _name, most, _chance = max(both, key=lambda one: one[1].count)
    low, high = most.interval
    text = f"{percent(most.share)} ({100 * low:.1f}–{100 * high:.1f})"
    figures = {name: {**ranks.as_json(), "noise_first": chance.hits} for name, ranks, chance in both}
    return by_chance(what, p, text, figures)


def _uniform(views: Sequence[View], known: Knowledge) -> Finding:
    tested = {view.name: uniformity(view, known.sent) for view in views}
    results = {name: result for name, result in tested.items() if result is not None}
    p = at_least_one([result.p for result in results.values()])
    return by_chance(UNIFORM, p, f"p {p:.2g}", {name: result.as_json() for name, result in results.items()})


def _reused(views: Sequence[View]) -> Finding:
    pairs = {view.name: near_pairs(view) for view in views}
    found = sum(result.found for result in pairs.values())
    near = sum(result.near + result.opposite for result in pairs.values())
    most = max((result.compared for result in pairs.values()), default=0)
    figures = {name: result.as_json() for name, result in pairs.items()}
    return no_more(REUSE, found, f"{near} of {most}", figures)
