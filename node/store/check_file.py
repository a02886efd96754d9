"""What a thin client keeps of a unit without its weights: what the client needs of it, and the check for results.

`<SHA-256 of the unit in hex>.check`, mode 0600, little-endian:

    8 bytes    "kekchk 1"
    uint32     N, K: outputs and inputs of the unit
    int64      the largest squared norm of a row of weights
    float32    scales [N]
    uint32     U [3, N]
    uint32     V = U W, by tiles of 512 outputs: [tiles, 3, K]
    32 bytes   SHA-256 of the unit's hash and of everything above

U and V are secret: whoever knows them can forge results that pass the check. They never leave this device.
"""

from __future__ import annotations

import hashlib
import math
import struct
from pathlib import Path

import numpy as np

from node.errors import CorruptModelError
from node.model.unit import Unit, UnitRef
from node.store.files import replace_atomically
from protocol.limits import FREIVALDS_VECTORS, TILE_OUTPUTS
from protocol.linear.field import Floats
from protocol.linear.verification import UnitCheck

SUFFIX = ".check"
MAGIC = b"kekchk 1"
PRIVATE = 0o600

_HEAD = struct.Struct("<8sIIq")
_DIGEST_BYTES = 32


def check_path(folder: Path, sha256: bytes) -> Path:
    """The path of the check of the unit with this hash, in a folder of checks."""
    return folder / f"{sha256.hex()}{SUFFIX}"


def check_bytes(ref: UnitRef) -> int:
    """Size of a unit's check file."""
    return _HEAD.size + 4 * _num_words(ref) + _DIGEST_BYTES


def _num_words(ref: UnitRef) -> int:
    tiles = -(-ref.num_outputs // TILE_OUTPUTS)
    return ref.num_outputs + FREIVALDS_VECTORS * (ref.num_outputs + tiles * ref.num_inputs)


def write_check(folder: Path, unit: Unit, check: UnitCheck) -> None:
    """Writes what is needed of a unit, completely or not at all. Raises OSError if the disk refuses."""
    ref = unit.ref
    head = _HEAD.pack(MAGIC, ref.num_outputs, ref.num_inputs, round(unit.max_row_norm**2))
    arrays = (unit.scales.astype("<f4"), check.vectors.astype("<u4"), check.projections.astype("<u4"))
    content = b"".join([head, *(array.tobytes() for array in arrays)])
    digest = hashlib.sha256(ref.sha256 + content).digest()
    replace_atomically(check_path(folder, ref.sha256), content + digest, PRIVATE)


def has_check(folder: Path, ref: UnitRef) -> bool:
    """Whether a unit's check exists and is intact; a damaged one is removed."""
    try:
        _verify(check_path(folder, ref.sha256), ref)
    except CorruptModelError:
        check_path(folder, ref.sha256).unlink(missing_ok=True)
        return False
    return True


def read_check(folder: Path, ref: UnitRef, bias: Floats | None = None) -> tuple[Unit, UnitCheck]:
    """The unit without its weights, and its check, mapped into memory.

    Raises:
        CorruptModelError: the file is missing or damaged.
    """
    path = check_path(folder, ref.sha256)
    _verify(path, ref)
    num_outputs, tiles = ref.num_outputs, -(-ref.num_outputs // TILE_OUTPUTS)
    words = np.memmap(path, dtype="<u4", mode="r", offset=_HEAD.size, shape=(_num_words(ref),))
    scales = np.array(words[:num_outputs]).view("<f4").astype(np.float32)
    scales.flags.writeable = False
    vectors = np.asarray(words[num_outputs : num_outputs * (1 + FREIVALDS_VECTORS)])
    projections = np.asarray(words[num_outputs * (1 + FREIVALDS_VECTORS) :])
    check = UnitCheck(
        vectors.reshape(FREIVALDS_VECTORS, num_outputs),
        projections.reshape(tiles, FREIVALDS_VECTORS, ref.num_inputs),
    )
    with path.open("rb") as file:
        squared_norm = _HEAD.unpack(file.read(_HEAD.size))[3]
    return Unit(ref, None, scales, math.sqrt(squared_norm), bias), check


def _verify(path: Path, ref: UnitRef) -> None:
    try:
        content = path.read_bytes() if path.stat().st_size == check_bytes(ref) else b""
    except OSError as exc:
        raise CorruptModelError(f"{path} cannot be read ({exc.strerror}); pull the model again") from exc
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    head = _HEAD.pack(MAGIC, ref.num_outputs, ref.num_inputs, 0)[:16]
    if hashlib.sha256(ref.sha256 + body).digest() != digest or body[:16] != head:
        raise CorruptModelError(f"{path} is damaged; pull the model again")
