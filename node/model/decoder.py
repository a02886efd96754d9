"""The decoder: tokens to logits, its linear layers through a seam, everything else in row-invariant kernels.

A token's logits are the same bits however the tokens before it were cut into passes, so where and in what company
a row is computed never shows. For that, floats are touched by `Kernels` and by elementwise numpy only: no BLAS, no
reduction of numpy's, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from node.errors import PromptError
from node.kernels.interface import Floats, Int16s, Int64s, Kernels
from node.model.cache import KVCache
from node.model.linear import LinearExecutor
from node.model.rope import rope_tables
from node.store.stored import StoredModel
from node.store.unit import Unit

BLOCK_ROWS = 512
"""Rows of one forward pass: the largest chunk that is sent, and a bound on the memory of a pass."""


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


class Decoder:
    """A model that computes logits; one thread at a time, any number of caches.

    Args:
        model: its units are opened, and checked, here.
        kernels: for everything that stays at the client, the head included.
        executor: for the linear layers of every decoder layer.

    Raises:
        CorruptModelError: a unit's file is damaged.
    """

    def __init__(self, model: StoredModel, kernels: Kernels, executor: LinearExecutor) -> None:
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
        """
        if len(token_ids) == 0:
            raise PromptError("there is no token to compute; give at least one")
        blocks = []
        for start in range(0, len(token_ids), BLOCK_ROWS):
            hidden = self._block(token_ids[start : start + BLOCK_ROWS], cache)
            if all_logits:
                blocks.append(self._logits(hidden))
        if all_logits:
            return np.concatenate(blocks)
        logits: Floats = self._logits(hidden[-1:])[0]
        return logits

    def _block(self, token_ids: Sequence[int], cache: KVCache) -> Floats:
        """One pass over all layers: hidden states f32[T, D] of at most BLOCK_ROWS tokens."""
        hidden = self.model.embedding_rows(token_ids)
        num_rows, start = len(hidden), cache.length
        cache.reserve(num_rows)
        stop = start + num_rows
        cos, sin = self._tables(start, stop)
        positions = np.arange(start, stop, dtype=np.int64)
        self.executor.begin_step(start, num_rows)
        for index, layer in enumerate(self._layers):
            keys, values = cache.keys[index], cache.values[index]
            mixed = self._attention(layer, hidden, cos, sin, keys, values, positions)
            hidden += self._linear(layer.o, *self._kernels.quantize(mixed, layer.o.max_row_norm))
            hidden += self._mlp(layer, hidden)
        cache.commit(token_ids)
        return hidden

    def _attention(
        self, layer: _Layer, hidden: Floats, cos: Floats, sin: Floats, keys: Floats, values: Floats, positions: Int64s
    ) -> Floats:
        """Attention over the cache, which first gets this block's keys and values: f32[T, H * d]."""
        config, kernels = self.config, self._kernels
        rows, scales = kernels.norm_quantize(
            hidden, layer.attention_norm, config.rms_norm_eps, layer.qkv.max_row_norm
        )
        num_rows, num_heads, num_groups = len(hidden), config.num_heads, config.num_kv_heads
        heads = self._linear(layer.qkv, rows, scales).reshape(num_rows, -1, config.head_dim)
        queries = self._normed(heads[:, :num_heads], layer.q_norm)
        new_keys = self._normed(heads[:, num_heads : num_heads + num_groups], layer.k_norm)
        if layer.q_norm is None:  # queries and keys lie together still
            kernels.rope(heads[:, : num_heads + num_groups], cos, sin)
        else:
            kernels.rope(queries, cos, sin)
            kernels.rope(new_keys, cos, sin)
        start, stop = int(positions[0]), int(positions[0]) + num_rows
        keys[:, start:stop] = new_keys.transpose(1, 0, 2)
        values[:, start:stop] = heads[:, num_heads + num_groups :].transpose(1, 0, 2)
        return kernels.attention(queries, keys, values, positions, layer.window, self._scale)

    def _normed(self, heads: Floats, gain: Floats | None) -> Floats:
        """Heads [T, H, d] with each head RMS-normed where the model does so (a copy), else as they are."""
        if gain is None:
            return heads
        flat = np.ascontiguousarray(heads).reshape(-1, heads.shape[2])
        return self._kernels.rms_norm(flat, gain, self.config.rms_norm_eps).reshape(heads.shape)

    def _mlp(self, layer: _Layer, hidden: Floats) -> Floats:
        kernels = self._kernels
        rows, scales = kernels.norm_quantize(
            hidden, layer.mlp_norm, self.config.rms_norm_eps, layer.gate_up.max_row_norm
        )
        gate_up = self._linear(layer.gate_up, rows, scales)
        return self._linear(layer.down, *kernels.gated_quantize(gate_up, layer.down.max_row_norm))

    def _linear(self, unit: Unit, rows: Int16s, scales: Floats) -> Floats:
        sums = self.executor.linear(unit, rows)
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


def _open_layer(model: StoredModel, layer: int) -> _Layer:
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
