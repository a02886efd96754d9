"""Which backend serves, what the self-test refuses, and which arguments no backend takes."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from node.errors import ConfigError
from node.kernels import CHOICE_VARIABLE, Kernels, every_backend, select_kernels
from node.kernels.build_kernels import HERE, declarations
from node.kernels.cuda import CudaKernels, float64_product, int8_product, signed_bytes
from node.kernels.delegating import DelegatingKernels
from node.kernels.interface import ACTIVATION_LIMIT, PRIME, Int16s
from node.kernels.portable import PortableKernels
from node.kernels.selftest import self_test
from protocol.linear.field import Elements, Sums, Weights

BACKENDS = every_backend()
each_backend = pytest.mark.parametrize("kernels", BACKENDS, ids=lambda kernels: kernels.name)
HAVE_NATIVE = len(BACKENDS) > 1


# ---- selection ----


def test_the_fastest_backend_serves_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CHOICE_VARIABLE, raising=False)
    monkeypatch.setattr("node.kernels.CUDA_DRIVER_PATHS", ())
    kernels = select_kernels(threads=2)
    assert kernels.name == BACKENDS[0].name and kernels.threads == 2
    assert (kernels.note is None) == HAVE_NATIVE


def test_the_portable_backend_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHOICE_VARIABLE, "portable")
    kernels = select_kernels()
    assert kernels.name == "portable" and kernels.note is not None and CHOICE_VARIABLE in kernels.note


@pytest.mark.skipif(not HAVE_NATIVE, reason="the C kernels were not built")
def test_any_level_that_runs_here_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in BACKENDS[:-1]:
        monkeypatch.setenv(CHOICE_VARIABLE, backend.name)
        assert select_kernels(threads=1).name == backend.name
    monkeypatch.setenv(CHOICE_VARIABLE, "c")
    assert select_kernels(threads=1).name == BACKENDS[0].name


def test_a_choice_that_cannot_be_met_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHOICE_VARIABLE, "fortran")
    with pytest.raises(ConfigError, match=CHOICE_VARIABLE):
        select_kernels()
    monkeypatch.setenv(CHOICE_VARIABLE, "c-vax")
    with pytest.raises(ConfigError, match="c-vax"):
        select_kernels()


def test_without_the_extension_numpy_serves_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise ImportError("no module named _kernels")

    monkeypatch.delenv(CHOICE_VARIABLE, raising=False)
    monkeypatch.setattr("node.kernels.CUDA_DRIVER_PATHS", ())
    monkeypatch.setattr("node.kernels.native_library.load_library", missing)
    kernels = select_kernels(threads=1)
    assert kernels.name == "portable" and kernels.note is not None and "compiler" in kernels.note
    assert [kernels.name for kernels in every_backend()] == ["portable"]


def test_a_miscounting_extension_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CHOICE_VARIABLE, raising=False)
    monkeypatch.setattr("node.kernels.CUDA_DRIVER_PATHS", ())
    monkeypatch.setattr("node.kernels.self_test", lambda kernels: None if kernels.name == "portable" else "miscounts")
    kernels = select_kernels(threads=1)
    assert kernels.name == "portable" and (not HAVE_NATIVE or kernels.note == "miscounts")


@pytest.mark.skipif(not HAVE_NATIVE, reason="the C kernels were not built")
def test_native_kernels_do_not_import_torch() -> None:
    code = "import sys; from node.kernels import select_kernels; select_kernels(1); assert 'torch' not in sys.modules"
    environment = {**os.environ, CHOICE_VARIABLE: "c"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=HERE.parents[1], timeout=60, env=environment)


# ---- self-test ----


@each_backend
def test_every_backend_passes(kernels: Kernels) -> None:
    assert self_test(kernels) is None


class OffByOne(DelegatingKernels):
    """A backend that miscounts the last output of one function by one, or raises."""

    def __init__(self, broken: str) -> None:
        super().__init__(PortableKernels())
        original = getattr(self.base, broken)

        def mutant(*arguments: Any) -> Any:
            result = original(*arguments)
            if isinstance(result, bool):
                return not result
            result.flat[-1] += 1
            return result

        setattr(self, broken, mutant)


@pytest.mark.parametrize(
    "broken",
    [
        "linear_a12",
        "linear_field",
        "share",
        "merge",
        "centre",
        "dots_agree",
        "field_combine",
        "field_project",
        "all_canonical",
    ],
)
def test_a_mutant_is_caught_by_name(broken: str) -> None:
    failure = self_test(OffByOne(broken))
    assert failure is not None and broken in failure


class Rounding(DelegatingKernels):
    """Right for small sums only, as float32 in the place of float64 would be."""

    def linear_a12(self, weights: Weights, rows: Int16s) -> Sums:
        return self.base.linear_a12(weights, rows).astype(np.float32).astype(np.int32)


def test_a_backend_that_fails_for_large_sums_alone_is_caught() -> None:
    failure = self_test(Rounding(PortableKernels()))
    assert failure is not None and "linear_a12" in failure


def test_a_backend_that_raises_is_refused() -> None:
    class Raising(DelegatingKernels):
        def merge(self, first: Elements, second: Elements) -> Sums:
            raise MemoryError("gone")

    failure = self_test(Raising(PortableKernels()))
    assert failure is not None and "MemoryError: gone" in failure


# ---- the GPU's limb arithmetic, on CPU tensors ----


@pytest.mark.parametrize("arithmetic", ["int8", "float64"])
def test_gpu_arithmetic_is_exact_on_cpu_tensors(arithmetic: Any) -> None:
    kernels = CudaKernels(PortableKernels(), torch.device("cpu"), arithmetic, min_weights=0)
    assert self_test(kernels) is None
    random = np.random.default_rng(4)
    weights = random.integers(-127, 128, (37, 205), np.int8)
    rows = random.integers(0, PRIME, (30, 205), np.uint32)
    expected = (rows.astype(np.int64) @ weights.T.astype(np.int64)) % PRIME
    assert np.array_equal(kernels.linear_field(weights, rows), expected)
    with pytest.raises(ValueError):
        kernels.linear_field(weights, rows + np.uint32(PRIME))


def test_gpu_products_agree_at_the_extremes() -> None:
    values = torch.tensor([[PRIME // 2] * 40, [-(PRIME // 2)] * 40, [-128] * 40], dtype=torch.int32)
    weights = torch.tensor([[127] * 40, [-127] * 40] * 4, dtype=torch.int8)
    expected = values.to(torch.int64) @ weights.t().to(torch.int64)
    assert torch.equal(int8_product(values, weights), expected % PRIME)
    assert torch.equal(float64_product(values, weights), expected % PRIME)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.int16, ACTIVATION_LIMIT), (torch.int32, PRIME // 2)])
def test_signed_bytes_are_the_digits_of_the_values(dtype: torch.dtype, limit: int) -> None:
    values = torch.tensor([[limit, -limit, 0, 127, 128, -128, -129, 255, 256, -32768 % limit]], dtype=dtype)
    digits = signed_bytes(values).to(torch.int64)
    scales = 256 ** torch.arange(digits.shape[2])
    assert torch.equal((digits * scales).sum(2), values.to(torch.int64))


def test_resident_weights_give_way_when_there_is_no_room() -> None:
    kernels = CudaKernels(PortableKernels(), torch.device("cpu"), min_weights=0, capacity_bytes=200)
    rows = np.ones((1, 8), np.int16)
    layers = [np.full((16, 8), i, np.int8) for i in range(3)]
    for _ in range(2):
        for i, weights in enumerate(layers):
            assert (kernels.linear_a12(weights, rows) == 8 * i).all()


# ---- arguments ----

WEIGHTS = np.ones((4, 6), np.int8)
ROWS = np.ones((2, 6), np.int16)
FIELD_ROWS = np.ones((2, 6), np.uint32)
HIDDEN = np.ones((2, 6), np.float32)
GAIN = np.ones(6, np.float32)
MANY_ROWS = np.ones((9, 6), np.uint32)
HEADS = np.ones((2, 4, 6), np.float32)
CACHE = np.ones((2, 5, 6), np.float32)
POSITIONS = np.zeros(2, np.int64)

REFUSED: dict[str, Callable[[Any], Any]] = {
    "weights of another dtype": lambda k: k.linear_a12(WEIGHTS.astype(np.int16), ROWS),
    "rows of another dtype": lambda k: k.linear_a12(WEIGHTS, ROWS.astype(np.int32)),
    "signed elements": lambda k: k.linear_field(WEIGHTS, FIELD_ROWS.astype(np.int32)),
    "a list": lambda k: k.linear_field(WEIGHTS, [[1] * 6]),
    "one axis": lambda k: k.linear_a12(WEIGHTS, ROWS[0]),
    "another width": lambda k: k.linear_a12(WEIGHTS, ROWS[:, :5].copy()),
    "columns of a wider array": lambda k: k.linear_a12(WEIGHTS[:, :5], ROWS[:, :5].copy()),
    "too long a sum": lambda k: k.linear_a12(np.ones((1, 65_537), np.int8), np.ones((1, 65_537), np.int16)),
    "big-endian elements": lambda k: k.all_canonical(FIELD_ROWS.astype(">u4")),
    "pads of another shape": lambda k: k.share(ROWS, FIELD_ROWS[:1]),
    "sums of another shape": lambda k: k.merge(FIELD_ROWS, FIELD_ROWS[:1]),
    "outputs of another length": lambda k: k.dots_agree(FIELD_ROWS, FIELD_ROWS[:, :5].copy(), FIELD_ROWS, FIELD_ROWS),
    "fewer inputs than outputs": lambda k: k.dots_agree(FIELD_ROWS, FIELD_ROWS, FIELD_ROWS, FIELD_ROWS[:1]),
    "fewer projections than vectors": lambda k: k.dots_agree(FIELD_ROWS, FIELD_ROWS, FIELD_ROWS[:1], FIELD_ROWS),
    "more vectors than dots_agree takes": lambda k: k.dots_agree(MANY_ROWS, FIELD_ROWS, MANY_ROWS, FIELD_ROWS),
    "coefficients of another length": lambda k: k.field_combine(FIELD_ROWS, FIELD_ROWS),
    "a projection of another length": lambda k: k.field_project(FIELD_ROWS, WEIGHTS),
    "doubles": lambda k: k.quantize(HIDDEN.astype(np.float64), 1.0),
    "a bound that is not finite": lambda k: k.quantize(HIDDEN, float("nan")),
    "a negative bound": lambda k: k.quantize(HIDDEN, -1.0),
    "a gain of another length": lambda k: k.rms_norm(HIDDEN, GAIN[:5], 1e-5),
    "an odd gate": lambda k: k.gated_quantize(HIDDEN[:, :5].copy(), 1.0),
    "scales of another length": lambda k: k.dequantize(FIELD_ROWS.view(np.int32), GAIN, GAIN, None),
    "a bias of another length": lambda k: k.dequantize(FIELD_ROWS.view(np.int32), GAIN[:2], GAIN, GAIN[:2]),
    "angles of another size": lambda k: k.rope(HEADS, HIDDEN, HIDDEN),
    "sines of another size": lambda k: k.rope(HEADS, HIDDEN[:, :3].copy(), HIDDEN[:, :2].copy()),
    "a softcap of nothing": lambda k: k.softcap(HIDDEN, 0.0),
    "a softcap that is no number": lambda k: k.attention(HEADS, CACHE, CACHE, POSITIONS, None, 1.0, float("nan")),
    "heads of an odd size": lambda k: k.rope(HEADS[:, :, :5].copy(), HIDDEN, HIDDEN),
    "heads strided within": lambda k: k.rope(HEADS[:, ::2], HIDDEN[:, :3].copy(), HIDDEN[:, :3].copy()),
    "values of another shape": lambda k: k.attention(HEADS, CACHE, CACHE[:1], POSITIONS, None, 1.0),
    "groups that do not divide": lambda k: k.attention(HEADS[:, :3].copy(), CACHE, CACHE, POSITIONS, None, 1.0),
    "a position beyond the cache": lambda k: k.attention(HEADS, CACHE, CACHE, POSITIONS + 5, None, 1.0),
    "a negative position": lambda k: k.attention(HEADS, CACHE, CACHE, POSITIONS - 1, None, 1.0),
    "an empty window": lambda k: k.attention(HEADS, CACHE, CACHE, POSITIONS, 0, 1.0),
}


@each_backend
@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED.keys())
def test_arguments_that_no_kernel_takes(kernels: Kernels, call: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError):
        call(kernels)


@each_backend
def test_unaligned_and_read_only_arrays_are_taken(kernels: Kernels) -> None:
    frame = np.zeros(4 * 7 + 1, np.uint8)
    frame[1::4] = np.arange(1, 8)
    row = np.frombuffer(frame.tobytes()[1:] + b"", np.uint32).reshape(1, 7)
    unaligned = frame[1:].view(np.uint32).reshape(1, 7)
    assert not row.flags.writeable and not unaligned.flags.aligned
    weights = np.ones((2, 7), np.int8)
    for elements in (row, unaligned):
        assert kernels.linear_field(weights, elements).tolist() == [[28, 28]]
        assert kernels.merge(elements, elements).tolist() == [[2, 4, 6, 8, 10, 12, 14]]


@each_backend
def test_no_rows_give_no_results(kernels: Kernels) -> None:
    assert kernels.linear_a12(WEIGHTS, ROWS[:0]).shape == (0, 4)
    assert kernels.quantize(HIDDEN[:0], 1.0)[0].shape == (0, 6)
    assert kernels.attention(HEADS[:0], CACHE, CACHE, POSITIONS[:0], None, 1.0).shape == (0, 24)
    assert kernels.all_canonical(np.zeros(0, np.uint32))


# ---- the build ----


def test_declarations_are_read_from_the_source() -> None:
    found = declarations((HERE / "kernels.c").read_text(), (HERE / "layer.h").read_text())
    assert "int kernel_linear_a12(int level, struct team *team, const int8_t *weights" in found
    assert "struct layer_run {" in found
    defined = re.findall(r"^static .*\bkernel_\w+\(", (HERE / "kernels.c").read_text(), re.MULTILINE)
    assert len(re.findall(r"\bkernel_\w+\(", found)) == len(defined) > 20


def test_constants_agree_between_python_and_c() -> None:
    source = "".join(path.read_text() for path in Path(HERE).glob("*.h"))
    assert f"ACTIVATION_LIMIT = {ACTIVATION_LIMIT} " in source and f"#define PRIME {PRIME}u" in source
    assert "#define SCALE_MARGIN 1.0009765625" in source and 1.0009765625 == 1 + 2**-10
