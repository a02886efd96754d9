"""The decoder: tokens to logits, its linear layers through a seam, everything else in row-invariant kernels.

A token's logits are the same bits however the tokens before it were cut into passes, so where and in what company
a row is computed never shows. For that, floats are touched by `Kernels` and by elementwise numpy only: no BLAS, no
reduction of numpy's, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from node.errors import ModelError, PromptError
from node.kernels.interface import Int16s, Int64s, Kernels, NotFiniteError
from node.model.cache import KVCache
from node.model.config import ModelConfig, UnitKind
from node.model.linear import LinearExecutor
from node.model.rope import rope_tables
from node.model.unit import Unit
from protocol.linear.field import Floats

BLOCK_ROWS = 512
"""Rows of one forward pass: the largest chunk that is sent, and a bound on the memory of a pass."""


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens of one sequence in a pass that several sequences share."""

    token_ids: Sequence[int]
    cache: KVCache

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


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of one part in the pass, and where in its sequence they stand."""

    start: int
    stop: int
    positions: Int64s
    cache: KVCache


@dataclass(frozen=True, slots=True)
class _Layer:
    """What one decoder layer needs, looked up once."""

    qkv: Unit
    o: Unit
    gate_up: Unit
    down: Unit
    attention_norm: Floats
    mlp_norm: Floats
    q_norm: Floats | None
    k_norm: Floats | None
    window: int | None


class ModelParts(Protocol):
    """What a decoder needs of a model: what is computed at home, and its units, with or without weights."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def final_norm(self) -> Floats: ...

    def unit(self, layer: int | None, kind: UnitKind) -> Unit: ...

    def norm(self, layer: int, name: str) -> Floats: ...

    def embedding_rows(self, token_ids: Sequence[int]) -> Floats: ...


class Decoder:
    """A model that computes logits; one thread at a time, any number of caches.

    Args:
        model: its units are opened, and checked, here.
        kernels: for everything that stays at the client, the head included.
        executor: for the linear layers of every decoder layer.

    Raises:
        CorruptModelError: a unit's file is damaged.
    """

    def __init__(self, model: ModelParts, kernels: Kernels, executor: LinearExecutor) -> None:
        self.model = model
        self.config = model.config
        self.executor = executor
        self._kernels = kernels
        self._layers = [_open_layer(model, layer) for layer in range(self.config.num_layers)]
        self._head = model.unit(None, "head")
        self._final_norm = model.final_norm
        self._scale = float(self.config.head_dim**-0.5)
        self._cos = np.empty((0, self.config.head_dim // 2), dtype=np.float32)
        self._sin = self._cos

    def new_cache(self, capacity: int | None = None) -> KVCache:
        """An empty cache for a sequence of at most `capacity` tokens, by default the model's context."""
        return KVCache(self.config, self.config.context_length if capacity is None else capacity)

    def forward(self, token_ids: Sequence[int], cache: KVCache, all_logits: bool = False) -> Floats:
        """Appends tokens to the cache's sequence; logits f32[V] after the last, or f32[T, V] after each.

        Whatever is raised, by the executor too, leaves the cache with whole blocks of tokens, and usable.

        Raises:
            PromptError: no token, one outside the vocabulary, or more than the cache has room for.
            PartError: what comes out is not finite.
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
                blocks.append(self._logits(hidden))
        if all_logits:
            return np.concatenate(blocks)
        logits: Floats = self._logits(hidden[-1:])[0]
        return logits

    def forward_parts(self, parts: Sequence[Part], wanted: Sequence[bool]) -> list[Floats | None]:
        """One pass over tokens of several sequences, at most BLOCK_ROWS in all, each as if it were alone.

        Args:
            parts: every sequence once, with one token at least.
            wanted: of each part, whether its logits are.

        Returns:
            Logits f32[V] after the last token of each part that wanted them. Whatever is raised leaves every cache as
            it was.

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
            logits = iter(self._logits(np.ascontiguousarray(hidden[rows]))) if rows else iter(())
        except NotFiniteError as exc:
            raise PartError(int(np.searchsorted(ends, numbered[exc.row]))) from exc
        for part in parts:
            part.cache.commit(part.token_ids)
        return [next(logits) if wants else None for wants in wanted]

    def _block(self, parts: Sequence[Part]) -> Floats:
        """One pass over all layers: hidden states f32[T, D] of at most BLOCK_ROWS tokens, not yet committed."""
        hidden = self.model.embedding_rows([token_id for part in parts for token_id in part.token_ids])
        for part in parts:
            part.cache.reserve(len(part.token_ids))
        blocks = _row_blocks(parts)
        tables = [self._tables(int(block.positions[0]), int(block.positions[-1]) + 1) for block in blocks]
        cos = tables[0][0] if len(tables) == 1 else np.concatenate([table[0] for table in tables])
        sin = tables[0][1] if len(tables) == 1 else np.concatenate([table[1] for table in tables])
        self.executor.begin_step(len(hidden))
        for index, layer in enumerate(self._layers):
            mixed = self._attention(index, layer, hidden, cos, sin, blocks)
            hidden += self._float_linear(layer.o, mixed)
            hidden += self._mlp(layer, hidden)
        return hidden

    def _attention(
        self, index: int, layer: _Layer, hidden: Floats, cos: Floats, sin: Floats, blocks: Sequence[_Rows]
    ) -> Floats:
        """Each part's attention over its cache, which first gets the new keys and values: f32[T, H * d]."""
        config, kernels = self.config, self._kernels
        num_rows, num_heads, num_groups = len(hidden), config.num_heads, config.num_kv_heads
        heads = self._normed_linear(layer.qkv, hidden, layer.attention_norm).reshape(num_rows, -1, config.head_dim)
        queries = self._normed(heads[:, :num_heads], layer.q_norm)
        new_keys = self._normed(heads[:, num_heads : num_heads + num_groups], layer.k_norm)
        if layer.q_norm is None:  # queries and keys lie together still
            kernels.rope(heads[:, : num_heads + num_groups], cos, sin)
        else:
            kernels.rope(queries, cos, sin)
            kernels.rope(new_keys, cos, sin)
        new_values = heads[:, num_heads + num_groups :]
        mixed = [
            self._attend(index, layer.window, block, queries, new_keys, new_values)  # each sees its own sequence
            for block in blocks
        ]
        return mixed[0] if len(mixed) == 1 else np.concatenate(mixed)

    def _attend(
        self, index: int, window: int | None, block: _Rows, queries: Floats, new_keys: Floats, new_values: Floats
    ) -> Floats:
        """Attention of one part's rows: f32[t, H * d]."""
        keys, values = block.cache.keys[index], block.cache.values[index]
        start, stop = int(block.positions[0]), int(block.positions[-1]) + 1
        keys[:, start:stop] = new_keys[block.start : block.stop].transpose(1, 0, 2)
        values[:, start:stop] = new_values[block.start : block.stop].transpose(1, 0, 2)
        rows = queries[block.start : block.stop]
        return self._kernels.attention(rows, keys, values, block.positions, window, self._scale)

    def _normed(self, heads: Floats, gain: Floats | None) -> Floats:
        """Heads [T, H, d] with each head RMS-normed where the model does so (a copy), else as they are."""
        if gain is None:
            return heads
        flat = np.ascontiguousarray(heads).reshape(-1, heads.shape[2])
        return self._kernels.rms_norm(flat, gain, self.config.rms_norm_eps).reshape(heads.shape)

    def _mlp(self, layer: _Layer, hidden: Floats) -> Floats:
        gate_up = self._normed_linear(layer.gate_up, hidden, layer.mlp_norm)
        if self.executor.wants_floats:
            return self._float_linear(layer.down, self._kernels.gated(gate_up))
        return self._linear(layer.down, *self._kernels.gated_quantize(gate_up, layer.down.max_row_norm))

    def _normed_linear(self, unit: Unit, hidden: Floats, gain: Floats) -> Floats:
        """A linear layer of RMS-normed rows; the same bits whether or not the normed rows are wanted as floats."""
        kernels, epsilon = self._kernels, self.config.rms_norm_eps
        if self.executor.wants_floats:
            return self._float_linear(unit, kernels.rms_norm(hidden, gain, epsilon))
        return self._linear(unit, *kernels.norm_quantize(hidden, gain, epsilon, unit.max_row_norm))

    def _float_linear(self, unit: Unit, floats: Floats) -> Floats:
        rows, scales = self._kernels.quantize(floats, unit.max_row_norm)
        return self._linear(unit, rows, scales, floats)

    def _linear(self, unit: Unit, rows: Int16s, scales: Floats, floats: Floats | None = None) -> Floats:
        sums = self.executor.linear(unit, rows, floats)
        return self._kernels.dequantize(sums, scales, unit.scales, unit.bias)

    def _logits(self, hidden: Floats) -> Floats:
        """Final norm and head, always computed here: f32[T, V]."""
        kernels, head = self._kernels, self._head
        rows, scales = kernels.norm_quantize(hidden, self._final_norm, self.config.rms_norm_eps, head.max_row_norm)
        return kernels.dequantize(kernels.linear_a12(head.weights, rows), scales, head.scales, None)

    def _tables(self, start: int, stop: int) -> tuple[Floats, Floats]:
        """Rotary tables of a range of positions; always computed in whole blocks, so an entry has one value."""
        while len(self._cos) < stop:
            first = len(self._cos)
            cos, sin = rope_tables(self.config, np.arange(first, first + BLOCK_ROWS, dtype=np.int64))
            self._cos = np.concatenate((self._cos, cos))
            self._sin = np.concatenate((self._sin, sin))
        return self._cos[start:stop], self._sin[start:stop]


def _row_blocks(parts: Sequence[Part]) -> list[_Rows]:
    """The rows of each part in a pass, in order."""
    blocks, start = [], 0
    for part in parts:
        stop = start + len(part.token_ids)
        blocks.append(_Rows(start, stop, part.positions, part.cache))
        start = stop
    return blocks


def _open_layer(model: ModelParts, layer: int) -> _Layer:
    return _Layer(
        qkv=model.unit(layer, "qkv"),
        o=model.unit(layer, "o"),
        gate_up=model.unit(layer, "gate_up"),
        down=model.unit(layer, "down"),
        attention_norm=model.norm(layer, "attention"),
        mlp_norm=model.norm(layer, "mlp"),
        q_norm=model.norm(layer, "q") if model.config.qk_norm else None,
        k_norm=model.norm(layer, "k") if model.config.qk_norm else None,
        window=model.config.window(layer),
    )
