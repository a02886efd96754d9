"""The file of a unit.

The SHA-256 in the name of `<sha256 in hex>.w8` covers the whole file:

    int8     weights [N, K], row-major, -127..127
    float32  scales [N], little-endian: weight = integer * scale of its row
    int64    exact squared row norms [N], little-endian: the sum of the squared integers of each row

The rows of `qkv` are those of q, then k, then v; the rows of `gate_up` are those of gate, then up. N and K are not in
the file; they are in the manifest that names the hash.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from node.errors import CorruptModelError
from node.model.unit import Unit, UnitRef
from node.store.files import sync, verify_file
from node.store.quantize import WEIGHT_LIMIT, quantize_rows, squared_row_norms
from protocol.linear.field import Floats, Weights

SUFFIX = ".w8"
CHECKED_BYTES = 1 << 22
"""Number of weights that are checked together."""


def unit_path(folder: Path, sha256: bytes) -> Path:
    """The path of the unit with this hash, in a folder of units."""
    return folder / f"{sha256.hex()}{SUFFIX}"


def write_unit(folder: Path, blocks: Iterable[Floats]) -> bytes:
    """Quantizes a layer's rows, given in blocks f32[n, K] in order, and writes its file; returns its SHA-256.

    Raises:
        UnsupportedModelError: a weight is not finite.
        OSError: the disk refuses.
    """
    temporary = folder / f".{os.getpid()}{SUFFIX}.tmp"
    digest = hashlib.sha256()
    scales, norms = [], []
    with temporary.open("wb") as file:
        for block in blocks:
            weights, block_scales = quantize_rows(block)
            scales.append(block_scales.astype("<f4"))
            norms.append(squared_row_norms(weights).astype("<i8"))
            digest.update(weights.data)
            file.write(weights.data)
        for tail in (np.concatenate(scales).tobytes(), np.concatenate(norms).tobytes()):
            digest.update(tail)
            file.write(tail)
        file.flush()
        sync(file.fileno())
    temporary.replace(unit_path(folder, digest.digest()))
    return digest.digest()


def load_unit(folder: Path, ref: UnitRef, bias: Floats | None = None, verify: bool = True) -> Unit:
    """Maps a unit's file into memory.

    Args:
        verify: read the whole file and check hash and content, once per process for an unchanged file.

    Raises:
        CorruptModelError: the file is missing, has a wrong size or hash, or has values that no import writes.
    """
    path = unit_path(folder, ref.sha256)
    _check_size(path, ref)
    freshly_read = verify and verify_file(path, ref.sha256)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), ref.num_bytes, access=mmap.ACCESS_READ)
    num_weights, count = ref.num_outputs * ref.num_inputs, ref.num_outputs
    weights = np.frombuffer(mapped, np.int8, num_weights).reshape(ref.num_outputs, ref.num_inputs)
    scales = np.frombuffer(mapped, "<f4", count, num_weights).astype(np.float32)
    norms = np.frombuffer(mapped, "<i8", count, num_weights + scales.nbytes).astype(np.int64)
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        raise _corrupt(path, "has a scale that is not a positive number")
    if norms.min() < 0 or norms.max() > WEIGHT_LIMIT**2 * ref.num_inputs:
        raise _corrupt(path, "has an impossible row norm")
    if freshly_read:
        _check_content(path, weights, norms)
    scales.flags.writeable = False
    return Unit(ref, weights, scales, math.sqrt(int(norms.max())), bias)


def _check_size(path: Path, ref: UnitRef) -> None:
    try:
        num_bytes = path.stat().st_size
    except OSError as exc:
        raise _corrupt(path, f"cannot be read ({exc.strerror})") from exc
    if num_bytes != ref.num_bytes:
        raise _corrupt(path, f"has {num_bytes} bytes instead of {ref.num_bytes}")


def _check_content(path: Path, weights: Weights, norms: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    """Raises CorruptModelError for a weight of -128, which W8 does not have, or for wrong norms, on which the bound
    against overflow depends."""
    step = max(1, CHECKED_BYTES // weights.shape[1])
    for start in range(0, len(weights), step):
        block = weights[start : start + step]
        if block.min() < -WEIGHT_LIMIT:
            raise _corrupt(path, "has the weight -128, which is not allowed")
        if not np.array_equal(squared_row_norms(block), norms[start : start + step]):
            raise _corrupt(path, "has row norms that do not match its rows")


def _corrupt(path: Path, what: str) -> CorruptModelError:
    return CorruptModelError(f"{path} {what}; import the model again")
