"""The `model_type` of GGUF architectures, and keys of `config.json` that only some of them have."""

from __future__ import annotations

from typing import Any

from node.store.gguf.values import Values

MODEL_TYPES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "phi3": "phi3",
    "smollm3": "smollm3",
    "olmo2": "olmo2",
    "granite": "granite",
}
"""The `model_type` of each supported architecture. In GGUF, Mistral's models have the architecture llama."""
PAIRED = ("llama", "smollm3", "granite")
"""Architectures in whose heads ggml rotates neighbouring features (llama.cpp, llama_model_rope_type)."""
ROTATED_IN_PART = ("phi3",)
_WITH_WINDOW = ("gemma2", "gemma3", "phi3")

_LARGEST = {"gemma2": 46, "gemma3": 62}
"""Number of layers of the 27B models. Their queries are scaled by another number than the size of a head, which no
file says (llama.cpp, src/models: gemma2.cpp and gemma3.cpp)."""


def special_keys(of: Values, hidden_size: int, num_heads: int, head_dim: int) -> dict[str, Any]:
    """Keys of `config.json` that not all architectures have."""
    if of.architecture not in _WITH_WINDOW and of.get("attention.sliding_window"):
        raise of.refuse("it is a model with a sliding window, which this architecture is not known to have")
    if of.architecture in _LARGEST:
        return _gemma(of, hidden_size, num_heads, head_dim)
    if of.architecture == "phi3":
        return _phi(of, head_dim)
    return _granite(of, head_dim) if of.architecture == "granite" else {}


def _granite(of: Values, head_dim: int) -> dict[str, Any]:
    """Factors that the file leaves out are 1, except that of attention (llama.cpp, src/models/granite.cpp)."""
    if of.get("rope.scaling.finetuned", True) is not True:
        raise of.refuse("its rotary embedding is switched off (rope.scaling.finetuned)")
    return {
        "attention_multiplier": of.get("attention.scale") or float(head_dim**-0.5),
        "embedding_multiplier": of.get("embedding_scale") or None,
        "residual_multiplier": of.get("residual_scale") or None,
        "logits_scaling": of.get("logit_scale") or None,
    }


def _phi(of: Values, head_dim: int) -> dict[str, Any]:
    """A window of 0 means no window (llama.cpp, conversion/phi.py)."""
    rotated = of.get("rope.dimension_count", head_dim)
    return {
        "sliding_window": of.get("attention.sliding_window") or None,
        "partial_rotary_factor": None if rotated == head_dim else rotated / head_dim,
        "original_max_position_embeddings": of.get("rope.scaling.original_context_length"),
    }


def _gemma(of: Values, hidden_size: int, num_heads: int, head_dim: int) -> dict[str, Any]:
    is_largest = of.get("block_count") == _LARGEST[of.architecture]
    usual = {"gemma2": (50.0, 30.0, 4096), "gemma3": (None, None, None)}[of.architecture]
    keys = {
        "query_pre_attn_scalar": hidden_size // num_heads if is_largest else head_dim,
        "attn_logit_softcapping": of.get("attn_logit_softcapping", usual[0]),
        "final_logit_softcapping": of.get("final_logit_softcapping", usual[1]),
        "sliding_window": of.get("attention.sliding_window", usual[2]),
        "rope_local_base_freq": of.get("rope.freq_base_swa", 10000.0),
    }
    pattern = of.get("attention.sliding_window_pattern")
    if isinstance(pattern, list):
        keys["layer_types"] = ["sliding_attention" if sliding else "full_attention" for sliding in pattern]
    elif pattern is not None:
        keys["sliding_window_pattern"] = pattern
    return keys
