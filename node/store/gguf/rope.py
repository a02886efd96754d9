"""The rotary embedding of a GGUF file as the `rope_scaling` of a `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from node.model.config import RopeConfig
from node.model.rope import inverse_frequencies
from node.store.gguf.values import Values
from protocol.linear.field import Floats

FREQUENCY_FACTORS = "rope_freqs.weight"
"""What the frequencies of a Llama 3 model are divided by; its configuration says the same by three numbers."""
FACTOR_TENSORS = (FREQUENCY_FACTORS,)

LLAMA_3_FACTORS = (8.0, 32.0)
"""Of Llama 3.1 and 3.2 (their config.json): what long waves are stretched by."""
LLAMA_3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def rope_scaling(of: Values, factors: Mapping[str, Floats], head_dim: int) -> dict[str, Any] | None:
    """What `config.json` says as rope_scaling.

    Args:
        factors: the tensors of the file that hold factors of frequencies, by name.
    """
    kind = of.get("rope.scaling.type", "none")
    if FREQUENCY_FACTORS in factors:
        factor = _llama_3_factor(of, factors[FREQUENCY_FACTORS], head_dim)
        return {"rope_type": "llama3", "factor": factor, **LLAMA_3}
    if kind == "none":
        return None
    return {"rope_type": kind, "factor": of.get("rope.scaling.factor")}


def _llama_3_factor(of: Values, factors: Floats, head_dim: int) -> float:
    """Which scaling of Llama 3 gives these factors."""
    theta = float(of.get("rope.freq_base", 10000.0))
    plain = inverse_frequencies(RopeConfig("default", theta), head_dim)
    for factor in LLAMA_3_FACTORS:
        rope = RopeConfig("llama3", theta, factor, 1.0, 4.0, 8192)
        if factors.shape == plain.shape and np.allclose(plain / factors, inverse_frequencies(rope, head_dim), 1e-5):
            return factor
    raise of.refuse("its rotary factors are not those of Llama 3")
