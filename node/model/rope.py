"""Rotary position embedding tables, as `transformers/modeling_rope_utils.py` computes them.

Frequencies are float32 as there (their rounding is part of the model); sine and cosine are taken in float64 and
rounded once, so that a position's entry does not depend on which other positions are asked for with it.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from node.model.config import ModelConfig, RopeConfig
from protocol.linear.field import Floats


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> Floats:
    """Radians per position of each pair of a head's features: f32[head_dim / 2]."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = np.float32(1.0) / np.power(rope.theta, exponents.astype(np.float64)).astype(np.float32)
    if rope.kind == "linear":
        return frequencies / np.float32(rope.factor)
    if rope.kind == "llama3":
        return _llama3(frequencies, rope)
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


def rope_tables(config: ModelConfig, positions: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Cosine and sine of each position's angles: two f32[T, head_dim / 2] for positions [T]."""
    frequencies = inverse_frequencies(config.rope, config.head_dim)
    angles = (positions.astype(np.float32)[:, None] * frequencies).astype(np.float64)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
