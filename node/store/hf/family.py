"""Checks common to all model types, and the defaults and special fields of each type's `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from node.model.config import MODEL_TYPES, ModelType
from node.store.hf.reader import Reader
from node.store.hf.window import unrotated_layers

DEFAULTS: dict[ModelType, dict[str, Any]] = {
    "gemma2": {
        "head_dim": 256,
        "tie_word_embeddings": True,
        "sliding_window": 4096,
        "query_pre_attn_scalar": 256,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    "gemma3": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262_208,
        "max_position_embeddings": 131_072,
        "tie_word_embeddings": True,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
        "query_pre_attn_scalar": 256,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
    },
    "phi3": {"rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096},
    "smollm3": {"tie_word_embeddings": True, "rope_theta": 2_000_000.0, "no_rope_layer_interval": 4},
    "olmo2": {"rms_norm_eps": 1e-5},
}
"""Defaults of the `transformers` configuration classes that released checkpoints leave out."""

_STORED_AS = {"gemma3_text": "gemma3"}
"""The type of a text part, if it has its own name."""
_TEXT_PARTS = ("gemma3", "mistral3")
"""Types of checkpoints with a vision tower, whose text part is a model by itself."""
_EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size")
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}


def text_part(raw: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The configuration of the text model; for a checkpoint with a vision tower, that of its text part."""
    text = raw.get("text_config")
    if not isinstance(text, Mapping):
        if raw.get("model_type") in _TEXT_PARTS:
            raise Reader(raw, where).refuse(
                f"it is a {raw['model_type']} with a vision tower and without text_config"
            )
        return raw
    if raw.get("model_type") not in _TEXT_PARTS:
        raise Reader(raw, where).refuse(
            f"it is a {raw.get('model_type')}, whose text part is not known to be a model by itself"
        )
    # transformers reads tie_word_embeddings from the whole model, not from its text part.
    ids = {key: raw[key] for key in ("eos_token_id", "bos_token_id") if key in raw}
    return {**ids, **text, "tie_word_embeddings": raw.get("tie_word_embeddings", True)}


def supported_type(reader: Reader) -> ModelType:
    """The model type. This refuses unsupported properties that no later function would notice."""
    raw = reader.raw
    found = raw.get("model_type")
    if any(raw.get(key) for key in _EXPERT_KEYS) or "moe" in str(found) or found == "mixtral":
        raise reader.refuse("it is a mixture of experts, whose choice of experts would give the prompt away")
    model_type = _STORED_AS.get(str(found), found)
    if model_type not in MODEL_TYPES:
        raise reader.refuse(f"its model_type is {found!r}")
    if raw.get("quantization_config"):
        raise reader.refuse("its weights are quantized already (quantization_config)")
    if raw.get("use_bidirectional_attention"):
        raise reader.refuse("its tokens see those after them (use_bidirectional_attention)")
    architectures = raw.get("architectures") or []
    if not isinstance(architectures, list):
        raise reader.refuse("its architectures are not a list")
    if architectures and not any(str(name).endswith("ForCausalLM") for name in architectures):
        raise reader.refuse(f"it is a {architectures[0]}, not a causal language model")
    return cast(ModelType, model_type)


def with_defaults(reader: Reader, model_type: ModelType) -> Reader:
    """The same configuration with the type's defaults for missing keys."""
    return Reader({**DEFAULTS.get(model_type, {}), **reader.raw}, reader.where)


def special_fields(
    reader: Reader, model_type: ModelType, hidden_size: int, head_dim: int, num_layers: int
) -> dict[str, Any]:
    """Fields of `ModelConfig` that only some families have."""
    fields: dict[str, Any] = {"activation": _activation(reader, model_type)}
    if model_type in ("gemma2", "gemma3"):
        fields |= _gemma(reader, model_type, hidden_size, head_dim)
    elif model_type == "granite":
        fields |= _granite(reader, head_dim)
    elif model_type == "olmo2":
        fields |= {"norms": "after", "qk_norm_whole": True}
    elif model_type == "smollm3":
        fields["unrotated_layers"] = unrotated_layers(reader, num_layers)
    return fields


def _granite(reader: Reader, head_dim: int) -> dict[str, Any]:
    return {
        "attention_scale": _scale(reader.number("attention_multiplier", 1.0), head_dim),
        "embedding_multiplier": reader.number("embedding_multiplier", 1.0),
        "residual_multiplier": reader.number("residual_multiplier", 1.0),
        "logits_divisor": reader.number("logits_scaling", 1.0),
    }


def _scale(scale: float, head_dim: int) -> float | None:
    """The scale, or None if it is the usual one."""
    return None if scale == float(head_dim**-0.5) else scale


def _activation(reader: Reader, model_type: ModelType) -> str:
    is_gemma = model_type in ("gemma2", "gemma3")
    key, usual = ("hidden_activation", "gelu_pytorch_tanh") if is_gemma else ("hidden_act", "silu")
    activation = reader.raw.get(key) or usual
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise reader.refuse(f"its activation is {activation!r}, not {' or '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[activation]


def _gemma(reader: Reader, model_type: ModelType, hidden_size: int, head_dim: int) -> dict[str, Any]:
    """transformers computes the square root of the hidden size in the weights' dtype, which is float32 here."""
    softcap = reader.number_or_none("attn_logit_softcapping")
    if model_type == "gemma3" and softcap is not None:
        raise reader.refuse("it has attn_logit_softcapping, which transformers does not apply in Gemma 3")
    scalar = reader.number("query_pre_attn_scalar")
    return {
        "norms": "around",
        "embedding_multiplier": float(np.float32(hidden_size**0.5)),
        "attention_scale": _scale(scalar**-0.5, head_dim),
        "attention_softcap": softcap,
        "logits_softcap": reader.number_or_none("final_logit_softcapping"),
    }
