"""The float reference agrees with transformers on every family, for random small models, however they were saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from node.errors import ModelError
from node.model.rope import inverse_frequencies
from node.store.hf.checkpoint import open_checkpoint
from node.store.hf.config import read_config
from node.store.hf.reference import ReferenceModel

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 97,
    "max_position_embeddings": 128,
    "initializer_range": 0.12,
    "attn_implementation": "eager",
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "rope_theta": 5000.0, "factor": 3.0}
QWEN_WINDOW = {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}
GEMMA = {"head_dim": 16, "sliding_window": 7, "query_pre_attn_scalar": 16}
GEMMA_ROPES = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 900000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 9000.0},
}
GEMMA_TYPES = ["full_attention", "sliding_attention", "sliding_attention"]
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
PHI = {
    "pad_token_id": 0,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.75,
        "short_factor": [1.0, 1.1, 1.2, 1.3, 1.5, 1.7],
        "long_factor": [1.0, 1.5, 2.5, 4.0, 8.0, 16.0],
    },
}
SMOL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GRANITE = {
    "attention_multiplier": 0.3,
    "embedding_multiplier": 7.5,
    "residual_multiplier": 0.22,
    "logits_scaling": 0.4,
}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-multi-head-tied": ("Llama", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "llama-linear": ("Llama", {"rope_parameters": LINEAR}),
    "llama-llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "llama-biases": ("Llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 24}),
    "mistral-window": ("Mistral", {"sliding_window": 7}),
    "mistral-no-window": ("Mistral", {"sliding_window": None, "head_dim": 8}),
    "qwen2": ("Qwen2", {}),
    "qwen2-window": ("Qwen2", QWEN_WINDOW),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "qwen3-tied-window": (
        "Qwen3",
        {"head_dim": 16, "tie_word_embeddings": True, "attention_bias": True, **QWEN_WINDOW},
    ),
    "llama-yarn": ("Llama", {"rope_parameters": YARN}),
    "qwen3-yarn": (
        "Qwen3",
        {"head_dim": 32, "rope_parameters": {**YARN, "mscale": 1.2, "mscale_all_dim": 0.7, "truncate": False}},
    ),
    "qwen2-yarn-attention": (
        "Qwen2",
        {"rope_parameters": {**YARN, "attention_factor": 1.3, "beta_fast": 12.0, "beta_slow": 0.5}},
    ),
    "phi3": ("Phi3", {"pad_token_id": 0}),
    "phi3-window-partial": (
        "Phi3",
        {"pad_token_id": 0, "sliding_window": 9, "rope_parameters": {**PLAIN_ROPE, "partial_rotary_factor": 0.75}},
    ),
    "phi3-longrope-short": ("Phi3", {**PHI, "original_max_position_embeddings": 64}),
    "phi3-longrope-long": ("Phi3", {**PHI, "original_max_position_embeddings": 32, "tie_word_embeddings": True}),
    "smollm3": ("SmolLM3", {"num_hidden_layers": 5, "attention_bias": True, "mlp_bias": True, **SMOL}),
    "smollm3-window": (
        "SmolLM3",
        {"no_rope_layers": [0, 1, 0], "use_sliding_window": True, "sliding_window": 5, **SMOL},
    ),
    "olmo2": ("Olmo2", {"num_key_value_heads": 2}),
    "olmo2-multi-head-biases": ("Olmo2", {"num_key_value_heads": 4, "attention_bias": True}),
    "granite": ("Granite", GRANITE),
    "granite-biases-tied": (
        "Granite",
        {**GRANITE, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    ),
    "granite-plain": ("Granite", {}),
    "gemma2": ("Gemma2", {**GEMMA, "num_hidden_layers": 4, "query_pre_attn_scalar": 24}),
    "gemma2-untied-no-softcap": (
        "Gemma2",
        {**GEMMA, "tie_word_embeddings": False, "attn_logit_softcapping": None, "final_logit_softcapping": None},
    ),
    "gemma3": ("Gemma3", {**GEMMA, "num_hidden_layers": 7}),
    "gemma3-linear": ("Gemma3", {**GEMMA, "rope_parameters": GEMMA_ROPES, "layer_types": GEMMA_TYPES}),
    "gemma3-softcap": (
        "Gemma3",
        {**GEMMA, "final_logit_softcapping": 4.0, "attention_bias": True, "query_pre_attn_scalar": 40},
    ),
}


CONFIGS = {"Gemma3": "Gemma3Text"}


def random_model(family: str, overrides: dict[str, Any]) -> Any:
    """A small transformers model whose norms and biases are not the ones and zeros they start with."""
    torch.manual_seed(5)
    config = getattr(transformers, f"{CONFIGS.get(family, family)}Config")(**{**SMALL, **overrides})
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("norm.weight", ".bias")):
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def difference(model: Any, folder: Path) -> float:
    """Largest difference between the logits of the reference and of transformers, over 50 random tokens."""
    ids = torch.randint(0, SMALL["vocab_size"], (1, 50), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model.float()(ids).logits[0].numpy()
    assert np.abs(expected).max() > 1.0, "logits near zero would agree with anything"
    actual = ReferenceModel(open_checkpoint(folder)).logits(ids[0].tolist())
    assert actual.dtype == np.float32
    return float(np.abs(actual - expected).max())


@pytest.mark.parametrize("name", FAMILIES)
def test_reference_agrees_with_transformers(
    name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    model = random_model(*FAMILIES[name])
    model.save_pretrained(tmp_path)
    worst = difference(model, tmp_path)
    record_property("largest_difference", worst)
    assert worst < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_widened_exactly(dtype: torch.dtype, tmp_path: Path) -> None:
    random_model("Llama", {}).to(dtype).save_pretrained(tmp_path)
    # Read back, as the conversion in place would have rounded the rotary frequencies too.
    model = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager")
    assert difference(model, tmp_path) < 1e-4


def test_sharded_checkpoint(tmp_path: Path) -> None:
    model = random_model("Qwen2", {})
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    assert difference(model, tmp_path) < 1e-4
    next(tmp_path.glob("model-00002*.safetensors")).unlink()
    with pytest.raises(ModelError, match="is missing"):
        open_checkpoint(tmp_path)


def mistral_with_vision() -> Any:
    """Mistral 3 with its vision tower, small."""
    torch.manual_seed(5)
    tower = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Mistral3Config(
        text_config={**SMALL, "model_type": "mistral", "head_dim": 8, "sliding_window": None, "rope_theta": 1e6},
        vision_config={**tower, "model_type": "pixtral", "image_size": 28, "patch_size": 14, "head_dim": 8},
        attn_implementation="eager",
    )
    return transformers.Mistral3ForConditionalGeneration(config).eval()


def gemma_with_vision() -> Any:
    """Gemma 3 with its vision tower, small."""
    torch.manual_seed(5)
    tower = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**SMALL, **GEMMA, "num_hidden_layers": 7, "rope_parameters": GEMMA_ROPES}
    config = transformers.Gemma3Config(
        text_config=text,
        vision_config={**tower, "image_size": 28, "patch_size": 14, "vision_use_head": False},
        mm_tokens_per_image=4,
        attn_implementation="eager",
    )
    return transformers.Gemma3ForConditionalGeneration(config).eval()


@pytest.mark.parametrize("prefixes", [None, ("language_model.model.", "language_model.lm_head.")])
@pytest.mark.parametrize("make", [gemma_with_vision, mistral_with_vision])
def test_the_text_part_of_a_model_with_a_vision_tower(
    make: Callable[[], Any], tmp_path: Path, prefixes: tuple[str, str] | None
) -> None:
    """As transformers saves it, and as it saved it before version 5 (the files of the released models)."""
    model = make()
    model.save_pretrained(tmp_path)
    if prefixes is not None:
        stored = load_file(tmp_path / "model.safetensors")
        older = {
            name.replace("model.language_model.", prefixes[0]).replace("lm_head.", prefixes[1]): tensor
            for name, tensor in stored.items()
        }
        save_file(older, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert any("vision_tower" in name for name in load_file(tmp_path / "model.safetensors"))
    assert difference(model, tmp_path) < 1e-4


FREQUENCIES = ["llama-linear", "llama-llama3", "qwen3", "llama-yarn", "qwen3-yarn", "phi3-longrope-short"]


@pytest.mark.parametrize("name", FREQUENCIES)
def test_frequencies_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    model = random_model(*FAMILIES[name])
    model.config.save_pretrained(tmp_path)
    config = read_config(tmp_path)
    ours = inverse_frequencies(config.rope, config.head_dim)
    np.testing.assert_allclose(ours, model.model.rotary_emb.inv_freq.numpy(), rtol=3e-7)
    assert config.rope.attention_factor == pytest.approx(model.model.rotary_emb.attention_scaling, rel=1e-12)
