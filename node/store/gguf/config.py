"""The metadata of a GGUF file as a Hugging Face `config.json`, which `hf.config` reads and judges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from node.errors import UnsupportedModelError
from node.model.config import ModelConfig, RopeConfig
from node.model.rope import inverse_frequencies
from node.store.gguf.header import TensorPlace
from node.store.hf.config import parse_config
from protocol.linear.field import Floats

ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""Mistral's models are of the architecture llama here."""
LLAMA_3_FACTORS = (8.0, 32.0)
"""Of Llama 3.1 and 3.2 (their config.json): what long waves are stretched by."""
LLAMA_3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def read_gguf_config(
    metadata: Mapping[str, Any], tensors: Mapping[str, TensorPlace], rope_factors: Floats | None, where: str
) -> ModelConfig:
    """The architecture.

    Args:
        rope_factors: what the file says that the rotary frequencies are divided by, f32[head_dim / 2].

    Raises:
        UnsupportedModelError: it is one that is not supported.
    """
    architecture = metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UnsupportedModelError(
            f"model {where} is not supported: its architecture is {architecture!r}; use one of {known}"
        )
    of = _Values(metadata, architecture, where)
    if of.get("expert_count") or of.get("attention.sliding_window"):
        what = "a mixture of experts" if of.get("expert_count") else "a model with a sliding window"
        raise UnsupportedModelError(f"model {where} is not supported: it is {what}; use a dense one without it")
    hidden_size, num_heads = of.integer("embedding_length"), of.integer("attention.head_count")
    head_dim = of.get("attention.key_length", hidden_size // max(1, num_heads))
    if of.get("rope.dimension_count", head_dim) != head_dim or of.get("attention.value_length", head_dim) != head_dim:
        raise UnsupportedModelError(f"model {where} is not supported: only a part of each head is rotated")
    embedding = tensors.get("token_embd.weight")
    raw = {
        "model_type": architecture,
        "hidden_size": hidden_size,
        "intermediate_size": of.get("feed_forward_length"),
        "num_hidden_layers": of.get("block_count"),
        "num_attention_heads": num_heads,
        "num_key_value_heads": of.get("attention.head_count_kv", num_heads),
        "head_dim": head_dim,
        "max_position_embeddings": of.get("context_length"),
        "rms_norm_eps": of.get("attention.layer_norm_rms_epsilon"),
        "vocab_size": 0 if embedding is None else embedding.shape[0],
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "rope_theta": of.get("rope.freq_base", 10000.0),
        "rope_scaling": _scaling(of, rope_factors, head_dim, where),
        "eos_token_id": _ids(metadata, "eos_token_id", "eot_token_id"),
        "bos_token_id": _ids(metadata, "bos_token_id"),
    }
    return parse_config(raw, {}, where)


class _Values:
    """Metadata of one architecture, whose keys begin with its name."""

    def __init__(self, metadata: Mapping[str, Any], architecture: str, where: str) -> None:
        self._metadata, self._architecture, self._where = metadata, architecture, where

    def get(self, key: str, default: Any = None) -> Any:
        value = self._metadata.get(f"{self._architecture}.{key}", default)
        return _shortest(value) if isinstance(value, float) else value

    def integer(self, key: str) -> int:
        value = self.get(key)
        if type(value) is not int or value <= 0:
            raise UnsupportedModelError(f"model {self._where} is not supported: its {key} is {value!r}")
        return value


def _shortest(value: float) -> float:
    """A float32 of the file as the decimal number that was meant: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _scaling(of: _Values, factors: Floats | None, head_dim: int, where: str) -> dict[str, Any] | None:
    kind = of.get("rope.scaling.type", "none")
    if factors is not None:
        return {"rope_type": "llama3", "factor": _llama_3_factor(of, factors, head_dim, where), **LLAMA_3}
    if kind == "none":
        return None
    return {"rope_type": kind, "factor": of.get("rope.scaling.factor")}


def _llama_3_factor(of: _Values, factors: Floats, head_dim: int, where: str) -> float:
    """Which scaling of Llama 3 gives these factors."""
    theta = float(of.get("rope.freq_base", 10000.0))
    plain = inverse_frequencies(RopeConfig("default", theta), head_dim)
    for factor in LLAMA_3_FACTORS:
        rope = RopeConfig("llama3", theta, factor, 1.0, 4.0, 8192)
        if factors.shape == plain.shape and np.allclose(plain / factors, inverse_frequencies(rope, head_dim), 1e-5):
            return factor
    raise UnsupportedModelError(f"model {where} is not supported: its rotary factors are not those of Llama 3")


def _ids(metadata: Mapping[str, Any], *keys: str) -> list[int]:
    found = [metadata.get(f"tokenizer.ggml.{key}") for key in keys]
    return list(dict.fromkeys(value for value in found if value is not None))
