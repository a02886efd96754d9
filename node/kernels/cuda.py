"""The two linear layers on an NVIDIA GPU through torch; everything else stays with another backend.

Rows are cut into signed base-256 limbs, so that int8 tensor cores give exact int32 products (`torch._int_mm`); if
those are missing or inexact, float64 products are used. The limb arithmetic is tested on CPU tensors, and the backend
must pass the same self-test as any other before it is used. `scripts/gpu_check` runs all of it on a card.

Only this module imports torch, and it is imported only if a GPU driver is found.
"""

from collections import OrderedDict
from threading import Lock
from typing import Final, Literal

import numpy as np
import torch

from node.kernels import checks
from node.kernels.delegating import DelegatingKernels
from node.kernels.interface import ACTIVATION_LIMIT, PRIME, Int16s, Kernels
from node.kernels.selftest import self_test
from protocol.linear.field import Elements, Sums, Weights

# Implementation.
DOUBLE_BLOCK: Final = 16_384
"""Inputs of one float64 product: 128 (p - 1) n < 2^53. In int8, 128 * 128 * 65 536 < 2^31 needs no blocks."""
MIN_ROWS: Final = 24
"""torch._int_mm on CUDA needs more than 16 rows on the left; 24 is the next multiple of 8."""
ALIGNMENT: Final = 8
"""torch._int_mm on CUDA needs inputs and outputs that are multiples of 8."""
BYTE_OFFSETS: Final = {torch.int16: 0x8080 - (1 << 16), torch.int32: 0x80808080 - (1 << 32)}
"""128 in every byte of a number, as the signed number of that width."""
MIN_WEIGHTS: Final = 1 << 20
"""The base backend computes smaller layers: two transfers and a launch take about as long."""
MEMORY_SHARE: Final = 0.8
"""Part of the GPU's free memory that weights may stay resident in."""

Arithmetic = Literal["int8", "float64"]


def cuda_kernels(base: Kernels) -> tuple[Kernels | None, str]:
    """The base backend with its linear layers on the GPU, or why that is not possible."""
    if not torch.cuda.is_available():
        return None, "torch finds no CUDA device"
    failures = []
    arithmetics: tuple[Arithmetic, ...] = ("int8", "float64")
    for arithmetic in arithmetics:
        kernels = CudaKernels(base, torch.device("cuda"), arithmetic, min_weights=0)
        failure = self_test(kernels)
        if failure is None:
            kernels.min_weights = MIN_WEIGHTS
            return kernels, ""
        failures.append(f"{arithmetic}: {failure}")
    return None, "; ".join(failures)


class CudaKernels(DelegatingKernels):
    """A backend whose two linear layers run on a torch device, with the weights resident there.

    A weight matrix is identified by its address in memory, and kept alive while it is resident: weights never change.
    """

    def __init__(
        self,
        base: Kernels,
        device: torch.device,
        arithmetic: Arithmetic = "int8",
        min_weights: int = MIN_WEIGHTS,
        capacity_bytes: int | None = None,
    ) -> None:
        super().__init__(base)
        self.name = f"{base.name}+{device.type}"
        self.min_weights = min_weights
        self.keeps_weights = True
        self.functions = base.functions
        self._device = device
        self._arithmetic = arithmetic
        self._resident: OrderedDict[tuple[int, tuple[int, ...]], tuple[Weights, torch.Tensor]] = OrderedDict()
        self._lock = Lock()
        self._capacity_bytes = _free_bytes(device) if capacity_bytes is None else capacity_bytes

    def linear_a12(self, weights: Weights, rows: Int16s) -> Sums:
        weights, rows = checks.linear(weights, rows, np.int16)
        if weights.size < self.min_weights or not rows.size:
            return self.base.linear_a12(weights, rows)
        if max(int(rows.max()), -int(rows.min())) > ACTIVATION_LIMIT:
            raise ValueError(f"rows hold a value beyond {ACTIVATION_LIMIT}")
        return self._product(weights, rows)

    def linear_field(self, weights: Weights, rows: Elements) -> Elements:
        weights, rows = checks.linear(weights, rows, np.uint32)
        if weights.size < self.min_weights or not rows.size:
            return self.base.linear_field(weights, rows)
        if not self.base.all_canonical(rows):
            raise ValueError("rows hold an element that is not below p")
        return self._product(weights, self.base.centre(rows)).view(np.uint32)

    def _product(self, weights: Weights, rows: Int16s | Sums) -> Sums:
        """Rows near zero [T, K] times the weights -> [T, N] int32: exact for int16 rows, residues for int32 rows."""
        resident = self._upload(weights)
        values = torch.from_numpy(rows if rows.flags.writeable else rows.copy()).to(self._device)
        multiply = int8_product if self._arithmetic == "int8" else float64_product
        product = multiply(values, resident)[:, : weights.shape[0]].contiguous()
        return self._download(product).numpy()

    def _download(self, product: torch.Tensor) -> torch.Tensor:
        """In memory that stays pinned and is used again by later results: new pages cost 15 times the copy."""
        host = torch.empty(product.shape, dtype=product.dtype, pin_memory=self._device.type == "cuda")
        return host.copy_(product)

    def _upload(self, weights: Weights) -> torch.Tensor:
        """The weights on the device, padded to multiples of ALIGNMENT; the least recently used are dropped."""
        key = weights.ctypes.data, weights.shape
        with self._lock:
            if key in self._resident:
                self._resident.move_to_end(key)
                return self._resident[key][1]
            used_bytes = sum(tensor.numel() for _, tensor in self._resident.values())
            while self._resident and used_bytes + weights.size > self._capacity_bytes:
                used_bytes -= self._resident.popitem(last=False)[1][1].numel()
            tensor = _padded(torch.tensor(weights).to(self._device), ALIGNMENT)
            self._resident[key] = weights, tensor
            return tensor


def int8_product(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Exact products through int8 matrices: values [T, K] near zero, weights [N, K'] int8 -> [T, N] int32.

    K' is K or its padding to a multiple of ALIGNMENT. int16 values give the sums themselves, which must fit; int32
    values give their residues mod p.
    """
    num_limbs, num_rows, num_inputs = values.element_size(), *values.shape
    height = max(MIN_ROWS, -(-num_rows * num_limbs // ALIGNMENT) * ALIGNMENT)
    # Not filled: padding of rows is never read, and padding of inputs meets weights that are zero.
    limbs = torch.empty((height, weights.shape[1]), dtype=torch.int8, device=values.device)
    used = limbs[: num_limbs * num_rows, :num_inputs].view(num_limbs, num_rows, num_inputs)
    used.copy_(signed_bytes(values).permute(2, 0, 1))
    sums = torch._int_mm(limbs, weights.t())[: num_limbs * num_rows].view(num_limbs, num_rows, -1)
    if num_limbs == 2:
        return torch.add(sums[0], sums[1], alpha=256)
    total = sums[-1].to(torch.int64)  # below 2^55 at the end: four limbs of sums below 2^31
    for limb in range(num_limbs - 2, -1, -1):
        total = torch.add(sums[limb], total, alpha=256)
    return torch.remainder(total, PRIME).to(torch.int32)


def signed_bytes(values: torch.Tensor) -> torch.Tensor:
    """Digits -128 .. 127 of integers in base 256, the lowest first: [T, K] int16 or int32 -> [T, K, 2 or 4] int8.

    With 128 added to every digit they are the bytes of an unsigned number, which has no borrow from one to the next;
    the highest digit fits where the value is below 127 * 256^(digits - 1).
    """
    offset = BYTE_OFFSETS[values.dtype]
    return ((values + offset) ^ offset).view(torch.int8).view(*values.shape, values.element_size())


def float64_product(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The same through float64, in blocks, and reduced mod p between them."""
    total = torch.zeros((values.shape[0], weights.shape[0]), dtype=torch.int64, device=values.device)
    is_field = values.dtype == torch.int32
    for start in range(0, values.shape[1], DOUBLE_BLOCK):
        block = values[:, start : start + DOUBLE_BLOCK]
        columns = weights[:, start : start + block.shape[1]]
        product = (block.to(torch.float64) @ columns.t().to(torch.float64)).to(torch.int64)
        total += torch.remainder(product, PRIME) if is_field else product
    return (torch.remainder(total, PRIME) if is_field else total).to(torch.int32)


def _padded(weights: torch.Tensor, alignment: int) -> torch.Tensor:
    """Zero rows and columns up to multiples of the alignment."""
    missing_rows, missing_columns = (-size % alignment for size in weights.shape)
    if not missing_rows and not missing_columns:
        return weights
    return torch.nn.functional.pad(weights, (0, missing_columns, 0, missing_rows))


def _free_bytes(device: torch.device) -> int:
    """Room for resident weights: a share of the GPU's free memory; on the CPU, in tests, a gigabyte."""
    if device.type != "cuda":
        return 1 << 30
    return int(torch.cuda.mem_get_info(device)[0] * MEMORY_SHARE)
