"""The rotary embedding of a checkpoint: from `rope_parameters` (transformers 5), or `rope_scaling` and `rope_theta`
(before)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.model.config import MAX_CONTEXT, ModelType, RopeConfig
from node.store.hf.reader import Reader
from node.store.hf.window import FULL, SLIDING

KINDS = ("default", "linear", "llama3")


def read_ropes(
    reader: Reader, model_type: ModelType, context_length: int, has_window: bool
) -> tuple[RopeConfig, RopeConfig | None]:
    """The rotation of the model, and that of layers with a window where it is another one."""
    scaling = reader.raw.get("rope_scaling") or reader.raw.get("rope_parameters") or {}
    if not isinstance(scaling, Mapping):
        raise reader.refuse("its rotary embedding is no JSON object")
    if model_type != "gemma3":
        return _rope(reader, scaling, "rope_theta", context_length), None
    whole: Mapping[str, Any] = scaling
    local: Mapping[str, Any] = {}
    if FULL in scaling or SLIDING in scaling:
        whole, local = scaling.get(FULL) or {}, scaling.get(SLIDING) or {}
    ropes = (
        _rope(reader, whole, "rope_theta", context_length),
        _rope(reader, local, "rope_local_base_freq", context_length),
    )
    return ropes[0], ropes[1] if has_window and ropes[1] != ropes[0] else None


def _rope(reader: Reader, scaling: Mapping[str, Any], theta_key: str, context_length: int) -> RopeConfig:
    raw = reader.raw
    if any(isinstance(value, Mapping) for value in scaling.values()):
        raise reader.refuse("its rotary embedding differs between layers")
    values = Reader({**scaling, "rope_theta": scaling.get("rope_theta") or raw.get(theta_key)}, reader.where)
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
        raise reader.refuse(f"its rope type is {kind!r}, not {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    return RopeConfig(
        "llama3",
        theta,
        values.number("factor"),
        values.number("low_freq_factor"),
        values.number("high_freq_factor"),
        _original(reader, values, context_length),
    )


def _original(reader: Reader, values: Reader, context_length: int) -> int:
    """The context of the pretraining: what stands beside the rotary embedding goes before what stands in it."""
    key = "original_max_position_embeddings"
    original = values.integer(key, MAX_CONTEXT, context_length)
    return original if reader.raw.get(key) is None else reader.integer(key, MAX_CONTEXT)
