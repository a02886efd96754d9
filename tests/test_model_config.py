"""What a manifest holds of an architecture: old models keep their bytes, and there is one way to write each."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from msgspec.structs import replace
from test_model_checkpoints import TINY
from test_model_decoder import FAMILIES

from node.model.config import SPARSE_FIELDS, ModelConfig, RopeConfig
from node.store.hf.config import parse_config
from protocol import cbor

BEFORE: dict[str, str] = {
    "llama": "5c726dc814f6c754be9e2a5c8cac9ed6e5a24e1e4cddf77305674222e5e14cc5",
    "llama-biases": "37505ac73b7f0956923fa446b168d41a8d0e46c46d12c2777a3911e760351e88",
    "llama3": "cacfcb22054d356cbce5b9d04d0dbb1f06f7119f01c077103ee8ee7ab5e22577",
    "mistral": "9c059ac3d9d7fc03970e2439f9c6babcd4b74ee35125abe030c77ce672ce774a",
    "qwen2": "b537f2d161269414c3be03eed8b99793d45b9f1b3e51d83827c8d98c17b6569c",
    "qwen3": "074c2a7f792710186087bb2043cc9d3bdca6ca0473c72c8a23cd502363e852c1",
}
"""SHA-256 of the configurations as they were written before there were sparse fields."""
PLAIN = parse_config(TINY, {}, "x")


def of(name: str) -> ModelConfig:
    return parse_config({**TINY, **FAMILIES[name]}, {}, "x")


@pytest.mark.parametrize("name", BEFORE)
def test_models_that_were_known_before_keep_their_bytes(name: str) -> None:
    assert hashlib.sha256(cbor.encode(of(name).to_mapping())).hexdigest() == BEFORE[name]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_configuration_survives_its_bytes(name: str) -> None:
    content = cbor.encode(of(name).to_mapping())
    assert ModelConfig.from_mapping(cbor.decode(content, 1 << 16)) == of(name)


def test_what_is_new_is_written_only_where_it_says_something() -> None:
    written = set(PLAIN.to_mapping()) | set(PLAIN.to_mapping()["rope"])
    assert not written & SPARSE_FIELDS
    changed = replace(PLAIN, logits_divisor=2.0, full_layers=(1,), sliding_window=4).to_mapping()
    assert set(changed) - set(PLAIN.to_mapping()) == {"logits_divisor", "full_layers"}
    assert all(len(name) < 24 for name in SPARSE_FIELDS), "keys of manifests are short"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"logits_divisor": 1.0}, "default"),
        ({"full_layers": []}, "default"),
        ({"window_rope": None}, "default"),
        ({"full_layers": [2]}, "full_layers is out of range"),
        ({"full_layers": [1, 0]}, "full_layers is out of range"),
        ({"unrotated_layers": [-1]}, "unrotated_layers is out of range"),
        ({"full_layers": [True]}, "full_layers must be a list of int"),
        ({"full_layers": 1 << 60}, "full_layers must be a list of int"),
        ({"norms": "inside"}, "norms is out of range"),
        ({"activation": "relu"}, "activation is out of range"),
        ({"qk_norm_whole": True}, "qk_norm_whole is out of range"),
        ({"attention_scale": -1.0}, "attention_scale is out of range"),
        ({"logits_softcap": float("nan")}, "a multiplier is out of range"),
        ({"embedding_multiplier": float("inf")}, "a multiplier is out of range"),
        ({"residual_multiplier": 2}, "residual_multiplier is a int"),
        ({"window_rope": {}}, "fields differ"),
        ({"rope": {"rotary_dim": 3}}, "rope is out of range"),
        ({"rope": {"rotary_dim": 8}}, "rope is out of range"),
        ({"rope": {"kind": "yarn"}}, "rope is out of range"),
        ({"rope": {"short_factors": [1.0] * 4}}, "rope is out of range"),
        ({"rope": {"kind": "longrope", "original_context_length": 8, "short_factors": [1.0] * 4}}, "out of range"),
        ({"rope": {"beta_fast": 32.0}}, "default"),
        ({"rope": {"short_factors": [1]}}, "short_factors must be a list of float"),
        ({"rope": []}, "rope must be a map"),
    ],
)
def test_configurations_that_no_import_writes_are_refused(changes: dict[str, Any], reason: str) -> None:
    mapping = {**PLAIN.to_mapping(), **changes}
    if isinstance(changes.get("rope"), dict):
        mapping["rope"] = {**PLAIN.to_mapping()["rope"], **changes["rope"]}
    with pytest.raises(ValueError, match=reason):
        ModelConfig.from_mapping(mapping)


def test_layers_have_the_window_and_the_rotation_that_the_configuration_says() -> None:
    config = replace(of("gemma3"), num_layers=5, full_layers=(1, 4), unrotated_layers=(3,))
    assert [config.window(layer) for layer in range(5)] == [6, None, 6, 6, None]
    assert [config.rotation(layer) for layer in range(5)] == [1, 0, 1, None, 0]
    assert [rope.kind for rope in config.ropes] == ["linear", "default"]
    assert PLAIN.ropes == (PLAIN.rope,) and PLAIN.rotation(1) == 0


def test_long_factors_are_for_texts_that_may_grow_beyond_the_original_context() -> None:
    rope = RopeConfig("longrope", 1e4, original_context_length=8, short_factors=(1.0,), long_factors=(2.0,))
    assert [rope.stretches(length) for length in (7, 8, 9)] == [False, False, True]
    assert not RopeConfig("yarn", 1e4, original_context_length=8).stretches(9)
