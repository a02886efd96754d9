"""Reads `config.json` of a Hugging Face checkpoint into a `ModelConfig`, or refuses it in one sentence.

Everything that this project cannot compute exactly as `transformers` does is refused here, before a weight is read.
Defaults are those of the `transformers` configuration classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node.json_file import read_json_object
from node.model.config import (
    MAX_CONTEXT,
    MAX_DIMENSION,
    MAX_LAYERS,
    MAX_VOCABULARY,
    ModelConfig,
)
from node.store.hf.family import special_fields, supported_type, text_part, with_defaults
from node.store.hf.reader import Reader
from node.store.hf.rope import read_ropes
from node.store.hf.window import read_window

_WITHOUT_BIAS = ("mistral", "phi3")
_WITH_MLP_BIAS = ("llama", "smollm3", "granite")


def read_config(folder: Path) -> ModelConfig:
    """The configuration of the checkpoint in `folder`.

    Raises:
        ModelNotFoundError: there is no `config.json`.
        CorruptModelError: it is not a JSON object, or a value is impossible.
        UnsupportedModelError: it describes a model that is not supported.
    """
    raw = read_json_object(folder / "config.json")
    generation_file = folder / "generation_config.json"
    generation = read_json_object(generation_file) if generation_file.exists() else {}
    return parse_config(raw, generation, str(folder))


def parse_config(raw: Mapping[str, Any], generation: Mapping[str, Any], where: str) -> ModelConfig:
    """Like `read_config`, from the parsed files; `where` names the model in errors."""
    reader = Reader(text_part(raw, where), where)
    model_type = supported_type(reader)
    reader = with_defaults(reader, model_type)
    hidden_size = reader.integer("hidden_size", MAX_DIMENSION)
    num_heads = reader.integer("num_attention_heads", MAX_DIMENSION)
    num_layers = reader.integer("num_hidden_layers", MAX_LAYERS)
    context_length = reader.integer("max_position_embeddings", MAX_CONTEXT)
    head_dim = _head_dim(reader, model_type, hidden_size, num_heads)
    num_kv_heads = _num_kv_heads(reader, model_type, num_heads)
    window, first_window_layer, full_layers = read_window(reader, model_type, num_layers)
    rope, window_rope = read_ropes(reader, model_type, context_length, head_dim, window is not None)
    attention_bias = model_type == "qwen2" or (model_type not in _WITHOUT_BIAS and reader.flag("attention_bias"))
    config = ModelConfig(
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
        rope=rope,
        sliding_window=window,
        first_window_layer=first_window_layer,
        attention_bias=attention_bias,
        output_bias=attention_bias and model_type != "qwen2",
        mlp_bias=model_type in _WITH_MLP_BIAS and reader.flag("mlp_bias"),
        qk_norm=model_type in ("qwen3", "gemma3", "olmo2"),
        tie_word_embeddings=reader.flag("tie_word_embeddings"),
        eos_ids=_token_ids(reader, generation, "eos_token_id"),
        bos_id=next(iter(_token_ids(reader, generation, "bos_token_id")), None),
        full_layers=full_layers,
        window_rope=window_rope,
        **special_fields(reader, model_type, hidden_size, head_dim, num_layers),
    )
    try:
        config.check_ranges()
    except ValueError as exc:
        raise reader.refuse(str(exc)) from exc
    return config


def _head_dim(reader: Reader, model_type: str, hidden_size: int, num_heads: int) -> int:
    default = 128 if model_type == "qwen3" else hidden_size // num_heads
    head_dim = reader.integer("head_dim", MAX_DIMENSION, default)
    if head_dim % 2:
        raise reader.refuse(f"its head_dim is {head_dim}, which is odd")
    if num_heads * head_dim > MAX_DIMENSION:
        raise reader.refuse(f"its {num_heads} heads of {head_dim} are more than {MAX_DIMENSION} features")
    return head_dim


def _num_kv_heads(reader: Reader, model_type: str, num_heads: int) -> int:
    # For some types the default is the number of heads; for the others it is the number of one released model.
    default = num_heads if model_type in ("llama", "phi3", "olmo2", "granite") else None
    num_kv_heads = reader.integer("num_key_value_heads", num_heads, default)
    if num_heads % num_kv_heads:
        raise reader.refuse(f"its {num_heads} heads do not divide among {num_kv_heads} key-value heads")
    return num_kv_heads


def _token_ids(reader: Reader, generation: Mapping[str, Any], key: str) -> tuple[int, ...]:
    """Token ids under `key`: one, a list or none; generation_config.json overrides config.json."""
    value = generation.get(key)
    if value is None:
        value = reader.raw.get(key)
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(token) is int and 0 <= token < MAX_VOCABULARY for token in values):
        raise reader.refuse(f"config.json has {key} = {value!r}, not a token id")
    return tuple(values)
