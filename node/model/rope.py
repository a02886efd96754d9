"""Frequencies of rotary position embeddings, as `transformers/modeling_rope_utils.py` computes them.

They are float32 as in `transformers`, because their rounding is a part of the model.
"""

from __future__ import annotations

import math

import numpy as np

from node.model.config import RopeConfig
from protocol.linear.field import Floats


def inverse_frequencies(rope: RopeConfig, head_dim: int, stretched: bool = False) -> Floats:
    """Radians per position of each rotated pair of a head's features: f32[rotated / 2].

    Args:
        stretched: whether to use the long factors of longrope.
    """
    dim = rope.rotated(head_dim)
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    powers = np.power(rope.theta, exponents.astype(np.float64)).astype(np.float32)
    if rope.kind == "longrope":
        factors = rope.long_factors if stretched else rope.short_factors
        return np.float32(1.0) / (np.array(factors, dtype=np.float32) * powers)
    frequencies = np.float32(1.0) / powers
    if rope.kind == "linear":
        return frequencies / np.float32(rope.factor)
    if rope.kind == "llama3":
        return _llama3(frequencies, rope)
    if rope.kind == "yarn":
        return _yarn(frequencies, np.float32(1.0) / (np.float32(rope.factor) * powers), rope, dim)
    return frequencies


def _llama3(frequencies: Floats, rope: RopeConfig) -> Floats:
    """Llama 3.1's scaling: long waves are stretched by `factor`, short ones kept, those between interpolated."""
    factor, low, high = np.float32(rope.factor), np.float32(rope.low_freq_factor), np.float32(rope.high_freq_factor)
    context = np.float32(rope.original_context_length)
    wavelengths = np.float32(2 * math.pi) / frequencies
    smooth = (context / wavelengths - low) / (high - low)
    between = (1 - smooth) * frequencies / factor + smooth * frequencies
    scaled = np.where(wavelengths > context / low, frequencies / factor, between)
    return np.where(wavelengths < context / high, frequencies, scaled).astype(np.float32)


def _yarn(frequencies: Floats, stretched: Floats, rope: RopeConfig, dim: int) -> Floats:
    """YaRN (arXiv 2309.00071): the first pairs are kept, the last stretched, those between mixed in proportion."""
    low, high = (_turning(rope, turns, dim) for turns in (rope.beta_fast, rope.beta_slow))
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001  # as in transformers: no division by zero
    ramp = (np.arange(dim // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    kept = np.float32(1.0) - np.clip(ramp, np.float32(0.0), np.float32(1.0))
    mixed: Floats = stretched * (np.float32(1.0) - kept) + frequencies * kept
    return mixed


def _turning(rope: RopeConfig, turns: float, dim: int) -> float:
    """The (fractional) index of the pair that turns so often in the original context."""
    return dim * math.log(rope.original_context_length / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))
