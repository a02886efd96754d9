"""The float half: the quantization rule, agreement with references, and row invariance.

Row invariance is bitwise within one backend: a row alone, in a batch, at any place of any cut, with any number of
threads. Bits are promised per machine and build: between the C levels of one build they are equal as well, between C
and numpy they agree to about 1e-6, because exponentials and the order of additions differ.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from node.kernels import Kernels, every_backend
from node.kernels.interface import ACTIVATION_LIMIT, ACTIVATIONS, PRIME, SCALE_MARGIN
from protocol.linear.field import Floats

BACKENDS = every_backend()
THREADED = every_backend(threads=2)
PORTABLE = BACKENDS[-1]
each_backend = pytest.mark.parametrize("kernels", BACKENDS, ids=lambda kernels: kernels.name)
each_pair = pytest.mark.parametrize(
    "kernels,threaded", list(zip(BACKENDS, THREADED, strict=True)), ids=lambda kernels: kernels.name
)
EPSILON = 1e-5
BOUND = 2e4

RowFunction = Callable[[Kernels, slice], tuple[NDArray[Any], ...]]


def normal(random: np.random.Generator, *shape: int) -> Floats:
    return random.standard_normal(shape, np.float32)


# ---- row invariance ----


def row_functions(num_rows: int, seed: int) -> dict[str, RowFunction]:
    """Each float kernel as a function of the rows it is given, over one fixed random batch."""
    random = np.random.default_rng(seed)
    width, head_size = 1 + seed % 700, 2 * (1 + seed % 70)
    hidden, gain = 3 * normal(random, num_rows, width), normal(random, width)
    gate_up = 4 * normal(random, num_rows, 2 * width)
    sums = random.integers(-(2**30), 2**30, (num_rows, width), np.int32)
    scales, bias = normal(random, num_rows), normal(random, width)
    heads = normal(random, num_rows, 4, head_size)
    cos, sin = normal(random, num_rows, head_size // 2), normal(random, num_rows, head_size // 2)
    keys, values = normal(random, 2, 150, head_size), normal(random, 2, 150, head_size)
    positions = random.integers(0, 150, num_rows)
    window = None if seed % 2 else 1 + seed % 160

    def rope(kernels: Kernels, rows: slice) -> tuple[Floats]:
        rotated = heads[rows].copy()
        kernels.rope(rotated, cos[rows], sin[rows])
        return (rotated,)

    def rope_in_part(kernels: Kernels, rows: slice) -> tuple[Floats]:
        rotated, half = heads[rows].copy(), 1 + seed % (head_size // 2)
        kernels.rope(rotated, cos[rows, :half].copy(), sin[rows, :half].copy())
        return (rotated,)

    def attention_softcap(kernels: Kernels, rows: slice) -> tuple[Floats]:
        return (kernels.attention(heads[rows], keys, values, positions[rows], window, 0.2, 0.7),)

    def attention(kernels: Kernels, rows: slice) -> tuple[Floats]:
        return (kernels.attention(heads[rows], keys, values, positions[rows], window, 0.2),)

    return {
        "quantize": lambda kernels, rows: kernels.quantize(hidden[rows], BOUND),
        "norm_quantize": lambda kernels, rows: kernels.norm_quantize(hidden[rows], gain, EPSILON, BOUND),
        "gated_quantize": lambda kernels, rows: kernels.gated_quantize(gate_up[rows], BOUND),
        "gated_quantize_gelu": lambda kernels, rows: kernels.gated_quantize(gate_up[rows], BOUND, "gelu_tanh"),
        "gated": lambda kernels, rows: (kernels.gated(gate_up[rows]),),
        "gated_gelu": lambda kernels, rows: (kernels.gated(gate_up[rows], "gelu_tanh"),),
        "softcap": lambda kernels, rows: (kernels.softcap(hidden[rows], 2.5),),
        "rms_norm": lambda kernels, rows: (kernels.rms_norm(hidden[rows], gain, EPSILON),),
        "dequantize": lambda kernels, rows: (kernels.dequantize(sums[rows], scales[rows], gain, bias),),
        "rope": rope,
        "rope_in_part": rope_in_part,
        "attention": attention,
        "attention_softcap": attention_softcap,
    }


FUNCTION_NAMES = sorted(row_functions(1, 0))


@each_pair
@pytest.mark.parametrize("name", FUNCTION_NAMES)
@settings(max_examples=12, deadline=None)
@given(
    num_rows=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(0, 9), max_size=3),
)
def test_a_row_has_the_same_bits_in_any_company(
    kernels: Kernels, threaded: Kernels, name: str, num_rows: int, seed: int, cuts: list[int]
) -> None:
    function = row_functions(num_rows, seed)[name]
    whole = function(kernels, slice(0, num_rows))
    edges = [0, *sorted(min(cut, num_rows) for cut in cuts), num_rows]
    alone = [slice(t, t + 1) for t in range(num_rows)]
    pieces = [slice(start, stop) for start, stop in pairwise(edges)]
    for cut, backend in ((alone, kernels), (pieces, kernels), ([slice(0, num_rows)], threaded)):
        parts = [function(backend, piece) for piece in cut]
        for i, expected in enumerate(whole):
            assert np.concatenate([part[i] for part in parts]).tobytes() == expected.tobytes()


@each_pair
def test_attention_on_two_threads_has_the_same_bits(kernels: Kernels, threaded: Kernels) -> None:
    random = np.random.default_rng(1)
    queries = normal(random, 33, 8, 64)
    keys, values = normal(random, 2, 200, 64), normal(random, 2, 200, 64)
    positions = np.arange(100, 133)
    one, two = (k.attention(queries, keys, values, positions, None, 0.125) for k in (kernels, threaded))
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("name", FUNCTION_NAMES)
@pytest.mark.parametrize("seed", [3, 16, 31, 64, 400, 1001])
def test_c_levels_agree_to_the_bit_and_numpy_closely(name: str, seed: int) -> None:
    function = row_functions(5, seed)[name]
    results = [function(kernels, slice(0, 5)) for kernels in BACKENDS]
    for result in results[1:-1]:
        assert all(a.tobytes() == b.tobytes() for a, b in zip(result, results[0], strict=True))
    for native, portable in zip(results[0], results[-1], strict=True):
        if native.dtype == np.int16:  # a value next to a half may round the other way
            assert np.abs(native.astype(int) - portable).max() <= 1
        else:
            np.testing.assert_allclose(native, portable, rtol=2e-6, atol=1e-6)


# ---- quantization ----


@each_backend
@settings(max_examples=40, deadline=None)
@given(
    num_rows=st.integers(0, 4),
    width=st.integers(1, 600),
    exponent=st.integers(-40, 38),
    log_bound=st.floats(0.0, 7.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_quantization_rule(
    kernels: Kernels, num_rows: int, width: int, exponent: int, log_bound: float, seed: int
) -> None:
    bound = 10.0**log_bound
    hidden = normal(np.random.default_rng(seed), num_rows, width).clip(-3, 3) * np.float32(10.0**exponent)
    rounded, scales = kernels.quantize(hidden, bound)
    assert rounded.dtype == np.int16 and scales.dtype == np.float32
    for row, integers, scale in zip(hidden, rounded, scales, strict=True):
        expected_integers, expected_scale = quantized_by_the_rule(row, bound)
        assert scale == expected_scale
        assert np.array_equal(integers, expected_integers)
        assert bound * np.sqrt(float(np.sum(integers.astype(np.int64) ** 2))) < PRIME / 2


def quantized_by_the_rule(row: Floats, bound: float) -> tuple[NDArray[np.int16], np.float32]:
    """interface.Kernels.quantize, word by word."""
    scale = np.abs(row).max() / np.float32(ACTIVATION_LIMIT)
    scale = np.float32(1.0) if scale == 0.0 else scale
    while True:
        with np.errstate(over="ignore"):
            quotients = (row / scale).clip(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)
        integers = np.rint(quotients).astype(np.int16)
        excess = bound * np.sqrt(float(np.sum(integers.astype(np.int64) ** 2))) / (PRIME / 2)
        if excess < 1.0:
            return integers, scale
        scale = max(np.float32(float(scale) * (excess * SCALE_MARGIN)), np.nextafter(scale, np.float32(np.inf)))


@each_backend
def test_a_row_of_subnormal_numbers_ends(kernels: Kernels) -> None:
    """Found by chance: its scale, times the margin, was rounded back to itself, and a peer would never have ended."""
    hidden = normal(np.random.default_rng(1222), 3, 24).clip(-3, 3) * np.float32(1e-40)
    rounded, scales = kernels.quantize(hidden, 10.0**6.005490885479243)
    for row, integers, scale in zip(hidden, rounded, scales, strict=True):
        assert np.array_equal(integers, quantized_by_the_rule(row, 10.0**6.005490885479243)[0])
        assert scale == quantized_by_the_rule(row, 10.0**6.005490885479243)[1]


@each_backend
def test_halves_round_to_even(kernels: Kernels) -> None:
    hidden = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 2047.0]], np.float32)
    rounded, scales = kernels.quantize(hidden, 1.0)
    assert scales[0] == 1.0 and rounded.tolist() == [[0, 2, 2, 0, -2, -2, 2047]]


@each_backend
def test_a_scale_is_enlarged_no_more_than_needed(kernels: Kernels) -> None:
    hidden = normal(np.random.default_rng(2), 3, 4096)
    tight = 5e4
    (loose_rounded, loose_scales), (rounded, scales) = kernels.quantize(hidden, 1.0), kernels.quantize(hidden, tight)
    assert (np.abs(loose_rounded).max(axis=1) == ACTIVATION_LIMIT).all() and (scales > loose_scales).all()
    used = tight * np.linalg.norm(rounded.astype(np.float64), axis=1) / (PRIME / 2)
    assert (used < 1.0).all() and (used > 0.99).all()


@each_backend
def test_rows_of_zeros_and_of_almost_nothing(kernels: Kernels) -> None:
    hidden = np.zeros((3, 20), np.float32)
    hidden[1, 3], hidden[2, 3] = 1e-45, 1e-41
    rounded, scales = kernels.quantize(hidden, BOUND)
    assert scales[0] == scales[1] == 1.0 and not rounded[:2].any()
    assert 0.0 < scales[2] < 1e-44 and abs(int(rounded[2, 3])) <= ACTIVATION_LIMIT
    assert kernels.norm_quantize(hidden, np.ones(20, np.float32), EPSILON, BOUND)[1][0] == 1.0
    assert kernels.gated_quantize(hidden, BOUND)[1][0] == 1.0


@each_backend
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_by_its_row(kernels: Kernels, value: float) -> None:
    gain = np.ones(40, np.float32)
    for place in (0, 21, 39):
        hidden = np.ones((5, 40), np.float32)
        hidden[3, place] = value
        with pytest.raises(ValueError, match="row 3"):
            kernels.quantize(hidden, BOUND)
        with pytest.raises(ValueError, match="row 3"):
            kernels.norm_quantize(hidden, gain, EPSILON, BOUND)
        for activation in ACTIVATIONS:
            with pytest.raises(ValueError, match="row 3"):
                kernels.gated_quantize(hidden, BOUND, activation)


# ---- what a trusted device is sent ----


@each_backend
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), width=st.integers(1, 300), bound=st.sampled_from([1.0, BOUND, 1e5, 3e6]))
def test_fused_kernels_round_the_very_rows_that_the_others_return(
    kernels: Kernels, seed: int, width: int, bound: float
) -> None:
    """Another device that rounds these rows gets the same integers, on any backend."""
    random = np.random.default_rng(seed)
    hidden, gain = 3 * normal(random, 3, width), normal(random, width)
    gate_up = 9 * normal(random, 3, 2 * width)
    gelu = kernels.gated(gate_up, "gelu_tanh"), kernels.gated_quantize(gate_up, bound, "gelu_tanh")
    plain = kernels.rms_norm(hidden, gain, EPSILON), kernels.gated(gate_up), gelu[0]
    fused = kernels.norm_quantize(hidden, gain, EPSILON, bound), kernels.gated_quantize(gate_up, bound), gelu[1]
    for floats, (rounded, scales) in zip(plain, fused, strict=True):
        for other in BACKENDS:
            there, there_scales = other.quantize(floats, bound)
            assert np.array_equal(there, rounded) and np.array_equal(there_scales, scales)


# ---- references ----


@each_backend
@pytest.mark.parametrize("width", [1, 7, 64, 257, 4096])
def test_norm_gate_and_dequantize_follow_their_formulas(kernels: Kernels, width: int) -> None:
    random = np.random.default_rng(width)
    hidden, gain = normal(random, 4, width), normal(random, width)
    wide = hidden.astype(np.float64)
    normed = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + EPSILON) * gain
    np.testing.assert_allclose(kernels.rms_norm(hidden, gain, EPSILON), normed, rtol=1e-6, atol=1e-7)
    gate_up = 30 * normal(random, 4, 2 * width)
    gate, up = gate_up[:, :width].astype(np.float64), gate_up[:, width:]
    rounded, scales = kernels.gated_quantize(gate_up, 1.0)
    expected = gate / (1 + np.exp(-gate)) * up
    np.testing.assert_allclose(rounded * scales[:, None], expected, rtol=0, atol=np.abs(expected).max() / 4000)
    sums = random.integers(-(2**24), 2**24, (4, width), np.int32)
    row_scales, bias = normal(random, 4), normal(random, width)
    expected32 = (sums.astype(np.float32) * gain) * row_scales[:, None]
    assert np.array_equal(kernels.dequantize(sums, row_scales, gain, None), expected32)
    assert np.array_equal(kernels.dequantize(sums, row_scales, gain, bias), expected32 + bias)


@each_backend
@pytest.mark.parametrize("head_size", [2, 8, 34, 64, 128])
def test_rope_rotates_halves_and_strided_rows(kernels: Kernels, head_size: int) -> None:
    random = np.random.default_rng(head_size)
    fused = normal(random, 3, 6, head_size)
    before = fused.copy()
    cos, sin = normal(random, 3, head_size // 2), normal(random, 3, head_size // 2)
    kernels.rope(fused[:, :4], cos, sin)
    first, second = before[:, :4, : head_size // 2], before[:, :4, head_size // 2 :]
    rotated = np.concatenate([-second, first], axis=-1)
    both_cos, both_sin = (np.concatenate([part, part], axis=-1)[:, None] for part in (cos, sin))
    expected = before[:, :4] * both_cos + rotated * both_sin
    assert np.array_equal(fused[:, :4], expected)
    assert np.array_equal(fused[:, 4:], before[:, 4:])


@each_backend
@pytest.mark.parametrize("half", [1, 3, 8])
def test_rope_in_part_leaves_the_rest_of_a_head(kernels: Kernels, half: int) -> None:
    random = np.random.default_rng(half)
    heads, cos, sin = normal(random, 2, 3, 16), normal(random, 2, half), normal(random, 2, half)
    whole, part = heads.copy(), np.ascontiguousarray(heads[:, :, : 2 * half])
    kernels.rope(whole, cos, sin)
    kernels.rope(part, cos, sin)
    assert np.array_equal(whole[:, :, : 2 * half], part)
    assert np.array_equal(whole[:, :, 2 * half :], heads[:, :, 2 * half :])


@each_backend
def test_gelu_and_softcap_follow_their_formulas(kernels: Kernels) -> None:
    """Over the whole range of floats, beside float64: no digits are lost near zero, and nothing overflows far out."""
    sizes = np.geomspace(1e-30, 1e30, 5000, dtype=np.float32)
    values = np.concatenate([-sizes[::-1], np.zeros(1, np.float32), sizes, normal(np.random.default_rng(3), 8000)])
    wide = values.astype(np.float64)
    with np.errstate(over="ignore"):
        z = np.sqrt(8 / np.pi) * (wide + 0.044715 * wide**3)
        expected = wide / (1 + np.exp(-z))
    found = kernels.gated(np.concatenate([values, np.ones_like(values)])[None], "gelu_tanh")[0]
    np.testing.assert_allclose(found, expected, rtol=5e-6, atol=1e-7)
    np.testing.assert_allclose(
        found, torch.nn.functional.gelu(torch.from_numpy(values), approximate="tanh"), atol=1e-6
    )
    for limit in (0.25, 30.0):
        capped = kernels.softcap(values[None], limit)[0]
        np.testing.assert_allclose(capped, limit * np.tanh(wide / limit), rtol=4e-7, atol=0)
        assert np.abs(capped).max() <= limit and np.array_equal(capped[:5001], -capped[5000:10001][::-1])


@each_backend
def test_attention_with_a_softcap(kernels: Kernels) -> None:
    """transformers' way (models/gemma2, eager_attention_forward), in float64."""
    random = np.random.default_rng(8)
    queries, keys, values = normal(random, 3, 4, 16), normal(random, 2, 40, 16), normal(random, 2, 40, 16)
    found = kernels.attention(queries, keys, values, np.array([5, 20, 39]), 8, 0.5, 1.5).reshape(3, 4, 16)
    for t, position in enumerate((5, 20, 39)):
        for h in range(4):
            seen = slice(max(0, position - 7), position + 1)
            scores = keys[h // 2, seen].astype(np.float64) @ queries[t, h].astype(np.float64) * 0.5
            weights = np.exp(1.5 * np.tanh(scores / 1.5))
            np.testing.assert_allclose(found[t, h], weights @ values[h // 2, seen] / weights.sum(), atol=3e-6)


def torch_attention(
    queries: Floats, keys: Floats, values: Floats, positions: NDArray[np.int64], window: int | None
) -> Floats:
    """torch's own attention with an explicit mask: [T, H, d], [G, S, d] -> [T, H * d]."""
    repeats = queries.shape[1] // keys.shape[0]
    slots, rows = torch.arange(keys.shape[1]), torch.from_numpy(positions)[:, None]
    mask = slots <= rows if window is None else (slots <= rows) & (slots > rows - window)
    mixed = torch.nn.functional.scaled_dot_product_attention(
        torch.from_numpy(queries.transpose(1, 0, 2).astype(np.float64)),
        torch.from_numpy(keys.astype(np.float64)).repeat_interleave(repeats, 0),
        torch.from_numpy(values.astype(np.float64)).repeat_interleave(repeats, 0),
        attn_mask=mask,
        scale=0.3,
    )
    result: Floats = mixed.transpose(0, 1).flatten(1).numpy().astype(np.float32)
    return result


@each_backend
@settings(max_examples=25, deadline=None)
@given(
    num_rows=st.integers(0, 5),
    groups=st.integers(1, 3),
    repeats=st.integers(1, 4),
    head_size=st.sampled_from([2, 8, 16, 30, 64, 80, 128]),
    num_slots=st.integers(1, 140),
    window=st.one_of(st.none(), st.integers(1, 150)),
    seed=st.integers(0, 2**32 - 1),
)
def test_attention_matches_torch_on_strided_caches(
    kernels: Kernels,
    num_rows: int,
    groups: int,
    repeats: int,
    head_size: int,
    num_slots: int,
    window: int | None,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    queries = normal(random, num_rows, groups * repeats, head_size)
    cache = normal(random, 2, groups, num_slots + 10, head_size)
    keys, values = cache[0, :, :num_slots], cache[1, :, :num_slots]
    positions = random.integers(0, num_slots, num_rows)
    found = kernels.attention(queries, keys, values, positions, window, 0.3)
    expected = torch_attention(queries, keys, values, positions, window)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
