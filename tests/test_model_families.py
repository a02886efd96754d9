"""The float reference agrees with transformers on every family, for random small models, however they were saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

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
}


def random_model(family: str, overrides: dict[str, Any]) -> Any:
    """A small transformers model whose norms and biases are not the ones and zeros they start with."""
    torch.manual_seed(5)
    config = getattr(transformers, f"{family}Config")(**{**SMALL, **overrides})
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


@pytest.mark.parametrize("name", ["llama-linear", "llama-llama3", "qwen3"])
def test_frequencies_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    model = random_model(*FAMILIES[name])
    model.config.save_pretrained(tmp_path)
    config = read_config(tmp_path)
    ours = inverse_frequencies(config.rope, config.head_dim)
    np.testing.assert_allclose(ours, model.model.rotary_emb.inv_freq.numpy(), rtol=3e-7)
