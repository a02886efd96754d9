"""The rotary embedding of a checkpoint: from `rope_parameters` (transformers 5), or `rope_scaling` and `rope_theta`
(before). Formulas and defaults are those of `transformers/modeling_rope_utils.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from node.model.config import MAX_CONTEXT, ModelType, RopeConfig
from node.store.hf.reader import Reader
from node.store.hf.window import FULL, SLIDING

KINDS = ("default", "linear", "llama3", "yarn", "longrope")


def read_ropes(
    reader: Reader, model_type: ModelType, context_length: int, head_dim: int, has_window: bool
) -> tuple[RopeConfig, RopeConfig | None]:
    """The rotation of the model, and that of layers with a window if it is a different one."""
    scaling = reader.raw.get("rope_scaling") or reader.raw.get("rope_parameters") or {}
    if not isinstance(scaling, Mapping):
        raise reader.refuse("its rotary embedding is not a JSON object")
    if model_type != "gemma3":
        rope = _Rope(
            reader, scaling, "rope_theta", context_length, _rotary_dim(reader, scaling, model_type, head_dim)
        )
        return rope.read(head_dim, model_type), None
    whole: Mapping[str, Any] = scaling
    local: Mapping[str, Any] = {}
    if FULL in scaling or SLIDING in scaling:
        whole, local = scaling.get(FULL) or {}, scaling.get(SLIDING) or {}
        if not isinstance(whole, Mapping) or not isinstance(local, Mapping):
            raise reader.refuse("its rotary embedding is not a JSON object")
    places = ((whole, "rope_theta"), (local, "rope_local_base_freq"))
    ropes = [_Rope(reader, part, key, context_length, 0).read(head_dim, model_type) for part, key in places]
    return ropes[0], ropes[1] if has_window and ropes[1] != ropes[0] else None


def _rotary_dim(reader: Reader, scaling: Mapping[str, Any], model_type: ModelType, head_dim: int) -> int:
    """Features of a head that are rotated; 0 for all of them."""
    partial = scaling.get("partial_rotary_factor", reader.raw.get("partial_rotary_factor"))
    if partial in (None, 1, 1.0):
        return 0
    if model_type != "phi3":
        raise reader.refuse(
            f"only a part of each head is rotated (partial_rotary_factor), which {model_type} does not have"
        )
    rotated = int(head_dim * Reader({"partial_rotary_factor": partial}, reader.where).number("partial_rotary_factor"))
    if not 0 < rotated <= head_dim or rotated % 2:
        raise reader.refuse(f"its partial_rotary_factor {partial} rotates {rotated} of {head_dim} features")
    return rotated if rotated < head_dim else 0


class _Rope:
    """One rotary embedding as a configuration describes it."""

    def __init__(
        self, reader: Reader, scaling: Mapping[str, Any], theta_key: str, context_length: int, rotary_dim: int
    ) -> None:
        self._outer, self._scaling, self._rotary_dim = reader, scaling, rotary_dim
        self._context_length = context_length
        if any(isinstance(value, Mapping) for value in scaling.values()):
            raise reader.refuse("its rotary embedding differs between layers")
        theta = scaling.get("rope_theta") or reader.raw.get(theta_key)
        self._values = Reader({**scaling, "rope_theta": theta}, reader.where)

    def read(self, head_dim: int, model_type: ModelType) -> RopeConfig:
        values, scaling = self._values, self._scaling
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        if kind == "su" or (kind == "yarn" and model_type == "phi3"):
            kind = "longrope"  # Phi-3's first configurations call it su or yarn
        if kind not in KINDS:
            raise self._outer.refuse(f"its rope type is {kind!r}, not {', '.join(KINDS[:-1])} or {KINDS[-1]}")
        rope = RopeConfig("default", values.number("rope_theta", 10000.0), rotary_dim=self._rotary_dim)
        if kind == "linear":
            return replace(rope, kind="linear", factor=values.number("factor"))
        if kind == "llama3":
            return replace(
                rope,
                kind="llama3",
                factor=values.number("factor"),
                low_freq_factor=values.number("low_freq_factor"),
                high_freq_factor=values.number("high_freq_factor"),
                original_context_length=self._original(),
            )
        if kind == "yarn":
            return self._yarn(rope)
        return self._longrope(rope, head_dim) if kind == "longrope" else rope

    def _yarn(self, rope: RopeConfig) -> RopeConfig:
        values, factor = self._values, self._values.number("factor")
        scales = [values.number_or_none("mscale"), values.number_or_none("mscale_all_dim")]
        usual = _magnitude(factor)
        if scales[0] and scales[1]:
            usual = _magnitude(factor, scales[0]) / _magnitude(factor, scales[1])
        return replace(
            rope,
            kind="yarn",
            factor=factor,
            original_context_length=self._original(),
            attention_factor=values.number("attention_factor", usual),
            beta_fast=values.number("beta_fast", 32.0),
            beta_slow=values.number("beta_slow", 1.0),
            truncate=values.flag("truncate", True),
        )

    def _longrope(self, rope: RopeConfig, head_dim: int) -> RopeConfig:
        values, original = self._values, self._original()
        factor = values.number("factor", self._context_length / original)
        usual = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 and original > 1 else 1.0
        count = rope.rotated(head_dim) // 2
        return replace(
            rope,
            kind="longrope",
            original_context_length=original,
            attention_factor=values.number("attention_factor", usual),
            short_factors=values.numbers("short_factor", count),
            long_factors=values.numbers("long_factor", count),
        )

    def _original(self) -> int:
        """The context of the pretraining; a value beside the rotary embedding overrides a value in it."""
        key = "original_max_position_embeddings"
        original = self._values.integer(key, MAX_CONTEXT, self._context_length)
        return original if self._outer.raw.get(key) is None else self._outer.integer(key, MAX_CONTEXT)


def _magnitude(factor: float, scale: float = 1.0) -> float:
    """YaRN's scale of attention (arXiv 2309.00071, section 3.4)."""
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0
