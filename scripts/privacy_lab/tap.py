"""What a tapped peer received, read back and examined as that peer would examine it.

Three questions: is every message of the allowed form; are its field elements uniform; do two rows ever differ by
little, which is what a pad that was used twice looks like (statistics of single rows cannot see that).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protocol import cbor
from protocol.codec import decode_message
from protocol.limits import MAX_CONTROL_FRAME_BYTES, ROW_BUCKETS
from protocol.linear.field import P
from protocol.linear.messages import Linear, Role
from protocol.link.hello import Hello
from protocol.link.messages import Attach, GoAway, Pong
from protocol.message import Cancel, Ping

MAX_RECORD_BYTES = 16 << 20
NEAR = 1 << 13
"""Two 12-bit rows under one pad differ by at most 4094 in every element; uniform ones are this near with p = 8e-6."""
COMPARED_ELEMENTS = 48
"""Elements of a row that are compared: 4 near ones of 48 happen by chance once in 10^15 pairs."""
NEAR_LIMIT = 4

Rows = NDArray[np.uint32]


@dataclass(slots=True)
class Tapped:
    """Everything one peer got in one session."""

    seeds: list[bytes] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)
    """Shares, `[rows, K]` each."""
    nonces: list[int] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)


def read_tap(path: Path) -> Tapped:
    """Parse a tap file; raises ValueError for a message that is not of an allowed form."""
    tapped = Tapped()
    for plane, frames in _records(path):
        message = decode_message(frames, MAX_CONTROL_FRAME_BYTES).message
        tapped.raw.extend(frames)
        match message:
            case Linear() if plane == "data":
                _note_linear(tapped, message)
            case Hello() | Ping() | Pong() | GoAway() if plane == "control":
                pass
            case Attach() | Cancel() if plane == "data":
                pass
            case _:
                raise ValueError(f"a {type(message).__name__} on the {plane} plane")
    return tapped


def _records(path: Path) -> Iterator[tuple[str, list[bytes]]]:
    data = path.read_bytes()
    while data:
        length = int.from_bytes(data[:4], "little")
        plane, frames = cbor.decode(data[4 : 4 + length], MAX_RECORD_BYTES)
        yield plane, frames
        data = data[4 + length :]


def _note_linear(tapped: Tapped, message: Linear) -> None:
    binding = message.binding
    if binding.num_rows not in ROW_BUCKETS:
        raise ValueError(f"a chunk of {binding.num_rows} rows")
    tapped.nonces.append(binding.nonce)
    if binding.role is Role.PAD:
        assert message.seed is not None
        tapped.seeds.append(message.seed)
    else:
        assert message.rows is not None
        if not (message.rows < P).all():
            raise ValueError("a share with an element that is not canonical")
        tapped.rows.append(message.rows)


def chi_square_p(elements: Rows, byte: int) -> float:
    """P-value of one byte of the elements being uniform (Wilson and Hilferty 1931 for the tail of chi-square)."""
    bins = 128 if byte == 3 else 256  # the top bit is always clear
    counts = np.bincount((elements >> np.uint32(8 * byte)) & np.uint32(bins - 1), minlength=bins)
    expected, freedom = len(elements) / bins, bins - 1
    statistic = float(((counts - expected) ** 2 / expected).sum())
    z = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    return 0.5 * math.erfc(z / math.sqrt(2))


def near_pairs(shares: Sequence[Rows]) -> tuple[int, int]:
    """(pairs of rows that are nearly equal mod p, pairs compared) among all rows of equal width."""
    near = compared = 0
    for width in sorted({share.shape[1] for share in shares}):
        rows = np.concatenate([share for share in shares if share.shape[1] == width])[:, :COMPARED_ELEMENTS]
        values = rows.astype(np.int64)
        for index in range(len(values) - 1):
            distance = (values[index + 1 :] - values[index]) % P
            close = ((distance < NEAR) | (distance > P - NEAR)).sum(axis=1)
            near += int((close >= NEAR_LIMIT).sum())
            compared += len(distance)
    return near, compared
