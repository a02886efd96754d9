"""The float32 model in plain torch, only to compare the integer path with it.

It follows `transformers` (models/llama, mistral, qwen2, qwen3, gemma2, gemma3, phi3, smollm3, olmo2, granite) and
holds the whole model in memory. The node never imports it; it is the only module of the model that needs torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from node.model.config import UnitKind
from node.model.rotation import Rotation
from node.store.hf.layout import FINAL_NORM, layer_shapes, norm_names, projections
from node.store.weight_source import WeightSource
from protocol.linear.field import Floats


class ReferenceModel:
    """Computes the logits of whole sequences with a checkpoint in float32."""

    def __init__(self, checkpoint: WeightSource) -> None:
        self.config = checkpoint.config
        self._embedding = torch.from_numpy(checkpoint.tensor(checkpoint.embedding))
        tied = checkpoint.head == checkpoint.embedding
        self._head = self._embedding if tied else torch.from_numpy(checkpoint.tensor(checkpoint.head))
        self._final_norm = torch.from_numpy(checkpoint.tensor(FINAL_NORM))
        self._weights: dict[str, Tensor] = {}
        for layer in range(self.config.num_layers):
            for name, _ in layer_shapes(self.config, layer):
                self._weights[name] = torch.from_numpy(checkpoint.tensor(name))

    @torch.no_grad()
    def logits(self, token_ids: Sequence[int]) -> Floats:
        """Logits after each token of a sequence that starts at position 0: f32[T, V]."""
        config = self.config
        hidden = self._embedding[torch.tensor(list(token_ids), dtype=torch.int64)] * config.embedding_multiplier
        positions, stretched = np.arange(len(token_ids), dtype=np.int64), config.rope.stretches(len(token_ids))
        rotations = [Rotation.at(rope, config.head_dim, positions, stretched) for rope in config.ropes]
        for layer in range(config.num_layers):
            index = config.rotation(layer)
            rotation = None if index is None else rotations[index]
            mixed = self._attention(self._normed(hidden, layer, "attention"), layer, rotation)
            hidden = hidden + self._normed(mixed, layer, "attention_after") * config.residual_multiplier
            mixed = self._mlp(self._normed(hidden, layer, "mlp"), layer)
            hidden = hidden + self._normed(mixed, layer, "mlp_after") * config.residual_multiplier
        logits = functional.linear(self._norm(hidden, self._final_norm), self._head) / config.logits_divisor
        capped: Floats = _softcapped(logits, config.logits_softcap).numpy()
        return capped

    def _unit(self, x: Tensor, layer: int, kind: UnitKind) -> Tensor:
        """A fused linear layer."""
        prefixes = [prefix for prefix, _ in projections(self.config, layer, kind)]
        parts = [(self._weights[f"{prefix}.weight"], self._weights.get(f"{prefix}.bias")) for prefix in prefixes]
        return torch.cat([functional.linear(x, weight, bias) for weight, bias in parts], dim=-1)

    def _norm(self, x: Tensor, gain: Tensor) -> Tensor:
        return gain * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.config.rms_norm_eps))

    def _normed(self, x: Tensor, layer: int, place: str) -> Tensor:
        """`x`, normed if the model has a norm at this place."""
        found = norm_names(self.config, layer).get(place)
        return x if found is None else self._norm(x, self._weights[found[0]])

    def _mlp(self, x: Tensor, layer: int) -> Tensor:
        gate, up = self._unit(x, layer, "gate_up").chunk(2, dim=-1)
        is_silu = self.config.activation == "silu"
        gated = functional.silu(gate) if is_silu else functional.gelu(gate, approximate="tanh")
        return self._unit(gated * up, layer, "down")

    def _heads(self, x: Tensor, layer: int, place: str) -> Tensor:
        """Heads [H, T, d] of projected rows, normed per head or all together if the model does so."""
        if self.config.qk_norm_whole:
            x = self._normed(x, layer, place)
        heads = x.view(len(x), -1, self.config.head_dim)
        return (heads if self.config.qk_norm_whole else self._normed(heads, layer, place)).transpose(0, 1)

    def _attention(self, x: Tensor, layer: int, rotation: Rotation | None) -> Tensor:
        config = self.config
        ends = [config.num_heads * config.head_dim, (config.num_heads + config.num_kv_heads) * config.head_dim]
        projected = torch.tensor_split(self._unit(x, layer, "qkv"), ends, dim=-1)
        queries, keys, values = (self._heads(*part) for part in zip(projected, [layer] * 3, "qkv", strict=True))
        if rotation is not None:
            queries, keys = _rotated(queries, rotation), _rotated(keys, rotation)
        group = config.num_heads // config.num_kv_heads
        keys, values = keys.repeat_interleave(group, dim=0), values.repeat_interleave(group, dim=0)
        scale = config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale
        scores = _softcapped(queries @ keys.transpose(1, 2) * scale, config.attention_softcap)
        weights = (scores + _mask(len(x), config.window(layer))).softmax(-1)
        return self._unit((weights @ values).transpose(0, 1).reshape(len(x), -1), layer, "o")


def _softcapped(x: Tensor, limit: float | None) -> Tensor:
    return x if limit is None else torch.tanh(x / limit) * limit


def _rotated(heads: Tensor, rotation: Rotation) -> Tensor:
    """Heads [H, T, d], rotated: of the first r features, feature i is paired with feature i + r/2."""
    cos, sin = torch.from_numpy(rotation.cos), torch.from_numpy(rotation.sin)
    half = cos.shape[1]
    first, second, rest = heads[..., :half], heads[..., half : 2 * half], heads[..., 2 * half :]
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)


def _mask(num_tokens: int, window: int | None) -> Tensor:
    """0 where a token (row) may see another (column), minus infinity elsewhere: [T, T]."""
    positions = torch.arange(num_tokens)
    distance = positions[:, None] - positions[None, :]
    visible = (distance >= 0) & (distance < (window or num_tokens))
    return torch.zeros(num_tokens, num_tokens).masked_fill(~visible, -torch.inf)
