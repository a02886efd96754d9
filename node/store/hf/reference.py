"""The float32 model in plain torch: what the integer path is measured against, and nothing else.

It follows `transformers` (models/llama, mistral, qwen2, qwen3) and holds the whole model in memory. The node never
imports it; it is the one module of the model that needs torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from node.model.rope import rope_tables
from node.store.hf.layout import FINAL_NORM, layer_shapes
from node.store.weight_source import WeightSource
from protocol.linear.field import Floats


class ReferenceModel:
    """A checkpoint in float32 that computes the logits of whole sequences."""

    def __init__(self, checkpoint: WeightSource) -> None:
        self.config = checkpoint.config
        self._embedding = torch.from_numpy(checkpoint.tensor(checkpoint.embedding))
        tied = checkpoint.head == checkpoint.embedding
        self._head = self._embedding if tied else torch.from_numpy(checkpoint.tensor(checkpoint.head))
        self._final_norm = torch.from_numpy(checkpoint.tensor(FINAL_NORM))
        self._layers = [self._load_layer(checkpoint, layer) for layer in range(self.config.num_layers)]

    def _load_layer(self, checkpoint: WeightSource, layer: int) -> dict[str, Tensor]:
        prefix = f"model.layers.{layer}."
        names = [name for name, _ in layer_shapes(self.config, layer)]
        return {name.removeprefix(prefix): torch.from_numpy(checkpoint.tensor(name)) for name in names}

    @torch.no_grad()
    def logits(self, token_ids: Sequence[int]) -> Floats:
        """Logits after each token of a sequence that starts at position 0: f32[T, V]."""
        hidden = self._embedding[torch.tensor(list(token_ids), dtype=torch.int64)]
        tables = rope_tables(self.config, np.arange(len(token_ids), dtype=np.int64))
        cos, sin = (torch.from_numpy(table) for table in tables)
        for layer, weights in enumerate(self._layers):
            hidden = hidden + self._attention(self._norm(hidden, weights["input_layernorm.weight"]), layer, cos, sin)
            hidden = hidden + self._mlp(self._norm(hidden, weights["post_attention_layernorm.weight"]), layer)
        logits: Floats = functional.linear(self._norm(hidden, self._final_norm), self._head).numpy()
        return logits

    def _linear(self, x: Tensor, layer: int, name: str) -> Tensor:
        weights = self._layers[layer]
        return functional.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def _norm(self, x: Tensor, gain: Tensor) -> Tensor:
        return gain * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.config.rms_norm_eps))

    def _mlp(self, x: Tensor, layer: int) -> Tensor:
        gate = functional.silu(self._linear(x, layer, "mlp.gate_proj"))
        return self._linear(gate * self._linear(x, layer, "mlp.up_proj"), layer, "mlp.down_proj")

    def _heads(self, x: Tensor, layer: int, name: str) -> Tensor:
        """Projected heads [H, T, d], normed by head where the model does so."""
        heads = self._linear(x, layer, f"self_attn.{name}_proj").view(len(x), -1, self.config.head_dim)
        if self.config.qk_norm and name != "v":
            heads = self._norm(heads, self._layers[layer][f"self_attn.{name}_norm.weight"])
        return heads.transpose(0, 1)

    def _attention(self, x: Tensor, layer: int, cos: Tensor, sin: Tensor) -> Tensor:
        config = self.config
        queries = _rotate(self._heads(x, layer, "q"), cos, sin)
        group = config.num_heads // config.num_kv_heads
        keys = _rotate(self._heads(x, layer, "k"), cos, sin).repeat_interleave(group, dim=0)
        values = self._heads(x, layer, "v").repeat_interleave(group, dim=0)
        scores = queries @ keys.transpose(1, 2) * config.head_dim**-0.5
        weights = (scores + _mask(len(x), config.window(layer))).softmax(-1)
        mixed = (weights @ values).transpose(0, 1).reshape(len(x), -1)
        return self._linear(mixed, layer, "self_attn.o_proj")


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Heads [H, T, d] rotated: feature i goes with feature i + d/2."""
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _mask(num_tokens: int, window: int | None) -> Tensor:
    """0 where a token (row) may see another (column), minus infinity elsewhere: [T, T]."""
    positions = torch.arange(num_tokens)
    distance = positions[:, None] - positions[None, :]
    visible = (distance >= 0) & (distance < (window or num_tokens))
    return torch.zeros(num_tokens, num_tokens).masked_fill(~visible, -torch.inf)
