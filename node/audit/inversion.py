"""From a row to its token: nearest neighbours of the first layer's rows, and vocabulary matching at any depth.

Both compare the direction of a row with those of the rows that candidate tokens would give, so norm and scale do not
matter. At the first layer a row is a function of its token alone, and all tokens are candidates (Song and Raghunathan
2020). Deeper, the attacker goes token by token, and is given the true tokens before (arXiv 2505.18332).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from node.audit.statistics import Numbers, auc, fisher_p, wilson
from node.audit.truth import EnoughError, Place, RowKeeper
from node.audit.views import Rows, View
from node.kernels.interface import Int16s, Kernels
from node.model.decoder import Decoder, Part
from node.model.linear import LocalLinear
from node.model.unit import UnitRef
from node.store.stored import StoredModel

TABLE_TOKENS = 4096
"""Tokens whose rows are in memory at a time."""
TOGETHER = 64
"""Candidate tokens computed in one pass."""
TIE = 1e-6
"""Cosines that differ by less are equal."""

Directions = NDArray[np.float32]


class Ranks(Struct):
    """Where the true tokens stood among the candidates."""

    num_candidates: int
    better: list[int] = []
    """For each row, how many candidates fit better than the true one."""

    @property
    def count(self) -> int:
        return len(self.better)

    @property
    def hits(self) -> int:
        """Rows for which no candidate fits better than the true one."""
        return sum(not better for better in self.better)

    @property
    def share(self) -> float:
        return self.hits / self.count if self.count else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.hits, self.count)

    @property
    def mean(self) -> float:
        """Mean rank: 0 is always first, 0.5 is chance."""
        return float(np.mean(self.better)) / (self.num_candidates - 1) if self.better else 0.5

    def p_against(self, noise: Ranks) -> float:
        """P-value of these ranks being those of noise: of first places and of all ranks, whichever differs more."""
        ranked = auc(_numbers(self.better), _numbers(noise.better))
        return min(1.0, 2 * min(fisher_p(self.hits, self.count, noise.hits, noise.count), ranked.p))

    def as_json(self) -> dict[str, object]:
        return {
            "rows": self.count,
            "first": self.hits,
            "interval": self.interval,
            "mean_rank": round(self.mean, 4),
            "candidates": self.num_candidates,
        }


class Candidates(Struct, frozen=True):
    """The rows that candidate tokens would give at one place, of some units."""

    true_index: int
    rows: Mapping[UnitRef, Directions]
    """[candidates, K] each, of length 1."""


def nearest_tokens(view: View, unit: UnitRef, texts: Mapping[int, Sequence[int]], table: FirstRows) -> Ranks | None:
    """The rank of the true token of each row of the first layer among all tokens; None if no such row was seen."""
    rows = view.of_unit(unit)
    if rows is None:
        return None
    seen = directions(rows.centred)
    tokens = np.array([texts[place.text][place.position] for place in rows.places if place is not None])
    true = np.einsum("nk,nk->n", seen, table.of(tokens))
    better = np.zeros(len(seen), dtype=np.int64)
    for part in table.parts():
        better += (seen @ part.T > true[:, None] + TIE).sum(axis=1)
    return Ranks(table.num_tokens, better.tolist())


def match_vocabulary(view: View, unit: UnitRef, candidates: Mapping[Place, Candidates]) -> Ranks | None:
    """The rank of the true token of each row of a unit among candidates; None if no row has candidates."""
    rows = view.of_unit(unit)
    chosen = _with_candidates(rows, unit, candidates)
    if rows is None or not chosen:
        return None
    seen, better, most = directions(rows.centred), [], 0
    for index, given in chosen:
        fits = given.rows[unit] @ seen[index]
        better.append(int((fits > fits[given.true_index] + TIE).sum()))
        most = len(fits)
    return Ranks(most, better)


def _with_candidates(
    rows: Rows | None, unit: UnitRef, candidates: Mapping[Place, Candidates]
) -> list[tuple[int, Candidates]]:
    if rows is None:
        return []
    found = [(index, candidates.get(place)) for index, place in enumerate(rows.places) if place is not None]
    return [(index, given) for index, given in found if given is not None and unit in given.rows]


class FirstRows:
    """What goes into the first layer, by token."""

    def __init__(self, model: StoredModel, kernels: Kernels, unit: UnitRef) -> None:
        self.num_tokens = model.config.vocab_size
        self._keeper = RowKeeper(kernels, lambda ref: ref == unit, unit)
        self._decoder = Decoder.of_units(model, kernels, self._keeper)
        self._unit = unit
        self._parts: list[Directions] = []

    def of(self, tokens: NDArray[np.int64]) -> Directions:
        """The rows of these tokens, of length 1."""
        return np.concatenate(list(self._of(tokens.tolist())))

    def parts(self) -> Iterator[Directions]:
        """The rows of all tokens, in order; kept after the first time, as they are needed for every view."""
        if not self._parts:
            for start in range(0, self.num_tokens, TABLE_TOKENS):
                tokens = list(range(start, min(start + TABLE_TOKENS, self.num_tokens)))
                self._parts.append(np.concatenate(list(self._of(tokens))))
        return iter(self._parts)

    def _of(self, tokens: Sequence[int]) -> Iterator[Directions]:
        """A row depends on its token alone, so they go through the first layer as one text after the other."""
        room = self._decoder.config.context_length
        step = min(room, 512)
        for start in range(0, len(tokens), step):
            part = tokens[start : start + step]
            cache = self._decoder.new_cache(len(part))
            with suppress(EnoughError):
                self._decoder.forward_parts([Part(part, cache)], [False])
            yield directions(self._keeper.take()[self._unit])


class Matcher:
    """Makes the candidates of places; the same text has the same ones in every session."""

    def __init__(
        self, model: StoredModel, kernels: Kernels, units: Sequence[UnitRef], decoys: int, seed: int = 7
    ) -> None:
        """
        Args:
            units: in the order in which a pass comes to them.
            decoys: how many other tokens are drawn; as many as the vocabulary has, or more, take all.
        """
        self.units = units
        wanted = frozenset(units)
        self._vocabulary, self._decoys, self._seed = model.config.vocab_size, decoys, seed
        self._keeper = RowKeeper(kernels, lambda unit: unit in wanted, units[-1])
        self._decoder = Decoder.of_units(model, kernels, self._keeper)
        self._before = Decoder.of_units(model, kernels, LocalLinear(kernels))
        self._head = any(unit.layer is None for unit in units)
        self._made: dict[tuple[int, ...], Candidates] = {}

    def at(self, token_ids: Sequence[int], position: int) -> Candidates:
        """The candidates for the token at a position, the tokens before it being known."""
        key = tuple(token_ids[: position + 1])
        if key not in self._made:
            self._made[key] = self._candidates(key[:-1], key[-1])
        return self._made[key]

    def _candidates(self, before: Sequence[int], true: int) -> Candidates:
        tokens = self._tokens(true)
        cache = self._decoder.new_cache(len(before) + 1)
        if before:
            self._before.forward(list(before), cache)
        found: dict[UnitRef, list[Int16s]] = {unit: [] for unit in self.units}
        caches = [cache.beginning(len(before)) for _ in range(min(TOGETHER, len(tokens)))]
        for start in range(0, len(tokens), TOGETHER):
            parts = [Part([token], own) for token, own in zip(tokens[start : start + TOGETHER], caches, strict=False)]
            with suppress(EnoughError):  # so that no cache keeps the token
                self._decoder.forward_parts(parts, [self._head] * len(parts))
            for unit, rows in self._keeper.take().items():
                found[unit].append(rows)
        return Candidates(
            tokens.index(true), {unit: directions(np.concatenate(rows)) for unit, rows in found.items()}
        )

    def _tokens(self, true: int) -> list[int]:
        if self._decoys >= self._vocabulary:
            return list(range(self._vocabulary))
        others = np.random.default_rng([self._seed, true]).permutation(self._vocabulary)
        return [true, *(int(token) for token in others[: self._decoys + 1] if token != true)][: self._decoys + 1]


def directions(rows: NDArray[np.int16] | NDArray[np.int32]) -> Directions:
    """Rows as vectors of length 1; a row of zeros stays one."""
    values = rows.astype(np.float32)
    lengths = np.sqrt(np.einsum("nk,nk->n", values, values))
    result: Directions = values / np.maximum(lengths, np.float32(1e-30))[:, None]
    return result


def _numbers(values: Sequence[int]) -> Numbers:
    return np.array(values, dtype=np.float64)
