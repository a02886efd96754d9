"""The rotary embedding of a GGUF file as the `rope_scaling` of a `config.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from node.model.config import RopeConfig
from node.model.rope import inverse_frequencies
from node.store.gguf.values import Values, shortest
from protocol.linear.field import Floats

FREQUENCY_FACTORS = "rope_freqs.weight"
"""The divisors of the frequencies of a Llama 3 model; its configuration gives the same with three numbers."""
SHORT_FACTORS, LONG_FACTORS = "rope_factors_short.weight", "rope_factors_long.weight"
"""The same for longrope, for short and for long texts."""
FACTOR_TENSORS = (FREQUENCY_FACTORS, SHORT_FACTORS, LONG_FACTORS)

LLAMA_3_FACTORS = (8.0, 32.0)
"""The factors by which Llama 3.1 and 3.2 stretch long waves (their config.json)."""
LLAMA_3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def rope_scaling(of: Values, factors: Mapping[str, Floats], head_dim: int) -> dict[str, Any] | None:
    """The value of `rope_scaling` in `config.json`.

    Args:
        factors: the tensors of the file that hold factors of frequencies, by name.
    """
    kind = of.get("rope.scaling.type", "none")
    if SHORT_FACTORS in factors or LONG_FACTORS in factors:
        return _longrope(of, factors)
    if FREQUENCY_FACTORS in factors:
        factor = _llama_3_factor(of, factors[FREQUENCY_FACTORS], head_dim)
        return {"rope_type": "llama3", "factor": factor, **LLAMA_3}
    if kind == "none":
        return None
    scaling = {"rope_type": kind, "factor": of.get("rope.scaling.factor")}
    return scaling | _yarn(of) if kind == "yarn" else scaling


def _yarn(of: Values) -> dict[str, Any]:
    """The converter writes the values of `config.json` and no defaults (llama.cpp, conversion/base.py)."""
    if of.get("rope.scaling.yarn_ext_factor", 1.0) != 1.0 or of.get("rope.scaling.yarn_log_multiplier"):
        raise of.refuse("its yarn has an extrapolation factor or a log multiplier, which transformers does not have")
    keys = {
        "original_max_position_embeddings": "rope.scaling.original_context_length",
        "beta_fast": "rope.scaling.yarn_beta_fast",
        "beta_slow": "rope.scaling.yarn_beta_slow",
    }
    attention_factor = of.get("rope.scaling.yarn_attn_factor", of.get("rope.scaling.attn_factor"))
    return {"attention_factor": attention_factor, **{name: of.get(key) for name, key in keys.items()}}


def _longrope(of: Values, factors: Mapping[str, Floats]) -> dict[str, Any]:
    """As for Phi-3; the factor of attention follows from the contexts, unless the file has another."""
    if not {SHORT_FACTORS, LONG_FACTORS} <= factors.keys():
        raise of.refuse(f"it holds only one of {SHORT_FACTORS} and {LONG_FACTORS}")
    original, context = of.integer("rope.scaling.original_context_length"), of.integer("context_length")
    usual = math.sqrt(1 + math.log(context / original) / math.log(original)) if context > original > 1 else 1.0
    stated = of.get("rope.scaling.attn_factor", usual)
    return {
        "rope_type": "longrope",
        "short_factor": [shortest(factor) for factor in factors[SHORT_FACTORS]],
        "long_factor": [shortest(factor) for factor in factors[LONG_FACTORS]],
        "original_max_position_embeddings": original,
        **({} if math.isclose(stated, usual, rel_tol=1e-6) else {"attention_factor": stated}),
    }


def _llama_3_factor(of: Values, factors: Floats, head_dim: int) -> float:
    """The scaling factor of Llama 3 that gives these divisors."""
    theta = float(of.get("rope.freq_base", 10000.0))
    plain = inverse_frequencies(RopeConfig("default", theta), head_dim)
    for factor in LLAMA_3_FACTORS:
        rope = RopeConfig("llama3", theta, factor, 1.0, 4.0, 8192)
        if factors.shape == plain.shape and np.allclose(plain / factors, inverse_frequencies(rope, head_dim), 1e-5):
            return factor
    raise of.refuse("its rotary factors are not those of Llama 3")
