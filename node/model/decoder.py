"""The decoder: tokens to hidden states, through runs of layers, to logits.

A token's logits are the same bits however the tokens before it were cut into passes, so where and in what company
a row is computed never shows. For that, floats are touched by `Kernels` and by elementwise numpy only: no BLAS, no
reduction of numpy's, no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Self

import numpy as np
from msgspec import Struct

from node.errors import ModelError, PromptError
from node.kernels.interface import Int64s, Kernels, NotFiniteError
from node.model.cache import KVCache
from node.model.head import Head
from node.model.layers import UnitLayers
from node.model.linear import LinearExecutor
from node.model.parts import ModelParts
from node.model.pool import Pool
from node.model.rotation import Rotations
from node.model.run import LayerRun, Rows
from protocol.linear.field import Floats

BLOCK_ROWS = 512
"""Rows of one forward pass: the largest chunk that is sent, and a bound on the memory of a pass."""


class Part(Struct, frozen=True):
    """Tokens of one sequence in a pass that several sequences share."""

    token_ids: Sequence[int]
    cache: KVCache
    pool: Pool | None = None
    """What gets the hidden states of its tokens, if they are wanted."""

    @property
    def positions(self) -> Int64s:
        """Where its tokens stand in their sequence."""
        start = self.cache.length
        return np.arange(start, start + len(self.token_ids), dtype=np.int64)


class PartError(ModelError):
    """One part of a pass cannot be computed; the others can without it."""

    def __init__(self, index: int) -> None:
        super().__init__(
            "what the model computes of this text is not finite numbers: its weights are damaged, import it again"
        )
        self.index = index


class Decoder:
    """A model that computes logits; one thread at a time, any number of caches.

    Args:
        model: what the ends of a pass need is read from it.
        runs: all layers, in order.
        head: what turns hidden states into logits.
        here: the layers whose keys and values are kept here from the start; by default all.
    """

    def __init__(
        self, model: ModelParts, runs: Sequence[LayerRun], head: Head, here: Collection[int] | None = None
    ) -> None:
        covered = [layer for run in runs for layer in run.layers]
        assert covered == list(range(model.config.num_layers)), f"{covered} are not all layers in order"
        self.model = model
        self.config = model.config
        self._runs = runs
        self._head = head
        self._here = here
        self._rotations = Rotations(model.config.ropes, model.config.head_dim)

    @classmethod
    def of_units(cls, model: ModelParts, kernels: Kernels, executor: LinearExecutor) -> Self:
        """All layers in one run; an executor computes its units one after the other, and the head.

        Raises:
            CorruptModelError: a unit's file is damaged.
        """
        layers = UnitLayers(model, kernels, executor, range(model.config.num_layers))
        return cls(model, [layers], Head(model, kernels, executor))

    def new_cache(self, capacity: int | None = None, reach: int | None = None) -> KVCache:
        """An empty cache for a sequence of at most `capacity` tokens, by default the model's context."""
        most = self.config.context_length if capacity is None else capacity
        return KVCache(self.config, most, reach, self._here)

    def forward(self, token_ids: Sequence[int], cache: KVCache, all_logits: bool = False) -> Floats:
        """Appends tokens to the cache's sequence; returns logits f32[V] after the last, or f32[T, V] after each.

        After any exception, even from the executor, the cache has complete blocks of tokens and is usable.

        Raises:
            PromptError: no token, one outside the vocabulary, or more than the cache has room for.
            PartError: the result is not finite.
        """
        if len(token_ids) == 0:
            raise PromptError("there is no token to compute; give at least one")
        try:
            return self._forward(token_ids, cache, all_logits)
        except NotFiniteError as exc:
            raise PartError(0) from exc

    def _forward(self, token_ids: Sequence[int], cache: KVCache, all_logits: bool) -> Floats:
        blocks = []
        for start in range(0, len(token_ids), BLOCK_ROWS):
            part = Part(token_ids[start : start + BLOCK_ROWS], cache)
            hidden = self._block([part])
            cache.commit(part.token_ids)
            if all_logits:
                blocks.append(self._head.logits(hidden))
        if all_logits:
            return np.concatenate(blocks)
        logits: Floats = self._head.logits(hidden[-1:])[0]
        return logits

    def forward_parts(self, parts: Sequence[Part], wanted: Sequence[bool]) -> list[Floats | None]:
        """One pass over tokens of several sequences, at most BLOCK_ROWS in all; each gets the same bits as if alone.

        Args:
            parts: every sequence once, with at least one token.
            wanted: for each part, whether its logits are wanted.

        Returns:
            Logits f32[V] after the last token of each part that wants them. After an exception no cache has changed.

        Raises:
            PartError: one part cannot be computed.
        """
        if not parts or not all(part.token_ids for part in parts):
            raise PromptError("there is no token to compute; give at least one")
        ends = np.cumsum([len(part.token_ids) for part in parts]) - 1
        rows = [int(end) for end, wants in zip(ends, wanted, strict=True) if wants]
        numbered: Sequence[int] = range(int(ends[-1]) + 1)  # which row of the pass each computed row is
        try:
            hidden = self._block(parts)
            numbered = rows
            logits = iter(self._head.logits(np.ascontiguousarray(hidden[rows]))) if rows else iter(())
        except NotFiniteError as exc:
            raise PartError(int(np.searchsorted(ends, numbered[exc.row]))) from exc
        for part, end in zip(parts, ends, strict=True):
            if part.pool is not None:
                part.pool.add(self._head.normed(hidden[end + 1 - len(part.token_ids) : end + 1]))
            part.cache.commit(part.token_ids)
        return [next(logits) if wants else None for wants in wanted]

    def _block(self, parts: Sequence[Part]) -> Floats:
        """One pass over all layers: hidden states f32[T, D] of at most BLOCK_ROWS tokens, not yet committed."""
        hidden = self.model.embedding_rows([token_id for part in parts for token_id in part.token_ids])
        if self.config.embedding_multiplier != 1.0:
            hidden *= np.float32(self.config.embedding_multiplier)
        for part in parts:
            part.cache.reserve(len(part.token_ids))
        blocks = _row_blocks(parts)
        rotations = self._rotations.of(
            [(int(block.positions[0]), int(block.positions[-1]) + 1, block.cache.stretched) for block in blocks]
        )
        for run in self._runs:
            hidden = run.forward(hidden, rotations, blocks)
        return hidden


def _row_blocks(parts: Sequence[Part]) -> list[Rows]:
    """The rows of each part in a pass, in order."""
    blocks, start = [], 0
    for part in parts:
        stop = start + len(part.token_ids)
        blocks.append(Rows(start, stop, part.positions, part.cache))
        start = stop
    return blocks
