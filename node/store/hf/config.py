"""Reads `config.json` of a Hugging Face checkpoint into a `ModelConfig`, or refuses it in one sentence.

Everything that this project cannot compute exactly as `transformers` does is refused here, before a weight is
read. Defaults are those of the `transformers` configuration classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from node.errors import UnsupportedModelError
from node.json_file import read_json_object
from node.model.config import (
    MAX_CONTEXT,
    MAX_DIMENSION,
    MAX_LAYERS,
    MAX_VOCABULARY,
    MODEL_TYPES,
    ModelConfig,
    ModelType,
    RopeConfig,
)

_EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size")


def read_config(folder: Path) -> ModelConfig:
    """The configuration of the checkpoint in `folder`.

    Raises:
        ModelNotFoundError: there is no `config.json`.
        CorruptModelError: it is not a JSON object, or a value makes no sense.
        UnsupportedModelError: it describes a model that is not supported.
    """
    raw = read_json_object(folder / "config.json")
    generation_file = folder / "generation_config.json"
    generation = read_json_object(generation_file) if generation_file.exists() else {}
    return parse_config(raw, generation, str(folder))


def parse_config(raw: Mapping[str, Any], generation: Mapping[str, Any], where: str) -> ModelConfig:
    """As `read_config`, from the parsed files; `where` names the model in errors."""
    reader = _Reader(raw, where)
    model_type = _supported_type(reader)
    hidden_size = reader.integer("hidden_size", MAX_DIMENSION)
    num_heads = reader.integer("num_attention_heads", MAX_DIMENSION)
    num_layers = reader.integer("num_hidden_layers", MAX_LAYERS)
    context_length = reader.integer("max_position_embeddings", MAX_CONTEXT)
    head_dim = _head_dim(reader, model_type, hidden_size, num_heads)
    num_kv_heads = _num_kv_heads(reader, model_type, num_heads)
    window, first_window_layer = _window(reader, model_type, num_layers)
    attention_bias = model_type == "qwen2" or (model_type != "mistral" and reader.flag("attention_bias"))
    return ModelConfig(
        model_type=model_type,
        hidden_size=hidden_size,
        intermediate_size=reader.integer("intermediate_size", MAX_DIMENSION),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        vocab_size=reader.integer("vocab_size", MAX_VOCABULARY),
        context_length=context_length,
        rms_norm_eps=reader.number("rms_norm_eps", 1e-6),
        rope=_rope(reader, context_length),
        sliding_window=window,
        first_window_layer=first_window_layer,
        attention_bias=attention_bias,
        output_bias=attention_bias and model_type != "qwen2",
        mlp_bias=model_type == "llama" and reader.flag("mlp_bias"),
        qk_norm=model_type == "qwen3",
        tie_word_embeddings=reader.flag("tie_word_embeddings"),
        eos_ids=_token_ids(reader, generation, "eos_token_id"),
        bos_id=next(iter(_token_ids(reader, generation, "bos_token_id")), None),
    )


class _Reader:
    """Typed access to a JSON object; every refusal names the model and the key."""

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self.raw = raw
        self.where = where

    def refuse(self, reason: str) -> UnsupportedModelError:
        supported = ", ".join(MODEL_TYPES)
        return UnsupportedModelError(
            f"model {self.where} is not supported: {reason}; use a dense {supported} checkpoint in safetensors"
        )

    def integer(self, key: str, limit: int, default: int | None = None, low: int = 1) -> int:
        value = self.raw.get(key)
        if value is None:
            value = default
        if type(value) is not int or not low <= value <= limit:
            raise self.refuse(f"config.json has {key} = {value!r}, not an integer in {low}..{limit}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.raw.get(key)
        if value is None:
            value = default
        if type(value) not in (int, float) or not 0 < cast(float, value) < 1e12:
            raise self.refuse(f"config.json has {key} = {value!r}, not a positive number")
        return float(cast(float, value))

    def flag(self, key: str) -> bool:
        value = self.raw.get(key)
        if value not in (None, True, False):
            raise self.refuse(f"config.json has {key} = {value!r}, not true or false")
        return bool(value)


def _supported_type(reader: _Reader) -> ModelType:
    """The model type, after every property that no later function would notice has been refused."""
    raw = reader.raw
    model_type = raw.get("model_type")
    if any(raw.get(key) for key in _EXPERT_KEYS) or "moe" in str(model_type) or model_type == "mixtral":
        raise reader.refuse("it is a mixture of experts, whose choice of experts would give the prompt away")
    if model_type not in MODEL_TYPES:
        raise reader.refuse(f"its model_type is {model_type!r}")
    if raw.get("quantization_config"):
        raise reader.refuse("its weights are quantized already (quantization_config)")
    activation = raw.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise reader.refuse(f"its activation is {activation!r}, not silu")
    architectures = raw.get("architectures") or []
    if architectures and not any(str(name).endswith("ForCausalLM") for name in architectures):
        raise reader.refuse(f"it is a {architectures[0]}, not a causal language model")
    return cast(ModelType, model_type)


def _head_dim(reader: _Reader, model_type: str, hidden_size: int, num_heads: int) -> int:
    default = 128 if model_type == "qwen3" else hidden_size // num_heads
    head_dim = reader.integer("head_dim", MAX_DIMENSION, default)
    if head_dim % 2:
        raise reader.refuse(f"its head_dim is {head_dim}, which is odd")
    if num_heads * head_dim > MAX_DIMENSION:
        raise reader.refuse(f"its {num_heads} heads of {head_dim} are more than {MAX_DIMENSION} features")
    return head_dim


def _num_kv_heads(reader: _Reader, model_type: str, num_heads: int) -> int:
    # Only Llama's default is "as many as there are heads"; the others' is a number of one released model.
    default = num_heads if model_type == "llama" else None
    num_kv_heads = reader.integer("num_key_value_heads", num_heads, default)
    if num_heads % num_kv_heads:
        raise reader.refuse(f"its {num_heads} heads do not divide among {num_kv_heads} key-value heads")
    return num_kv_heads


def _window(reader: _Reader, model_type: str, num_layers: int) -> tuple[int | None, int]:
    """The sliding window and the first layer that has it."""
    raw = reader.raw
    if model_type == "llama":
        return None, 0
    if model_type == "mistral":
        window = raw.get("sliding_window", 4096)
        return (None if window is None else reader.integer("sliding_window", MAX_CONTEXT, 4096)), 0
    if not reader.flag("use_sliding_window") or raw.get("sliding_window", 4096) is None:
        kinds = ["full_attention"] * num_layers
        first, window = 0, None
    else:
        first = min(num_layers, reader.integer("max_window_layers", MAX_CONTEXT, 28, low=0))
        window = reader.integer("sliding_window", MAX_CONTEXT, 4096)
        kinds = ["full_attention"] * first + ["sliding_attention"] * (num_layers - first)
    if raw.get("layer_types") not in (None, kinds):
        raise reader.refuse("its layer_types are not those that max_window_layers gives")
    return window, first


def _rope(reader: _Reader, context_length: int) -> RopeConfig:
    """Rotary embedding from `rope_parameters` (transformers 5) or `rope_scaling` and `rope_theta` (before)."""
    raw = reader.raw
    scaling = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
    if not isinstance(scaling, Mapping) or any(isinstance(value, Mapping) for value in scaling.values()):
        raise reader.refuse("its rotary embedding differs between layers")
    values = _Reader({"rope_theta": raw.get("rope_theta"), **scaling}, reader.where)
    if values.raw["rope_theta"] is None:
        values.raw = {**values.raw, "rope_theta": raw.get("rope_theta")}
    partial = scaling.get("partial_rotary_factor", raw.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        raise reader.refuse("only a part of each head is rotated (partial_rotary_factor)")
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    theta = values.number("rope_theta", 10000.0)
    if kind == "default":
        return RopeConfig("default", theta)
    if kind == "linear":
        return RopeConfig("linear", theta, values.number("factor"))
    if kind != "llama3":
        raise reader.refuse(f"its rope type is {kind!r}, not default, linear or llama3")
    outer = raw.get("original_max_position_embeddings")
    original = values.integer("original_max_position_embeddings", MAX_CONTEXT, context_length)
    return RopeConfig(
        "llama3",
        theta,
        values.number("factor"),
        values.number("low_freq_factor"),
        values.number("high_freq_factor"),
        original if outer is None else reader.integer("original_max_position_embeddings", MAX_CONTEXT),
    )


def _token_ids(reader: _Reader, generation: Mapping[str, Any], key: str) -> tuple[int, ...]:
    """Token ids under `key`: one, a list or none; generation_config.json goes before config.json."""
    value = generation.get(key)
    if value is None:
        value = reader.raw.get(key)
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(token) is int and 0 <= token < MAX_VOCABULARY for token in values):
        raise reader.refuse(f"config.json has {key} = {value!r}, not a token id")
    return tuple(values)
