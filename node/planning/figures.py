"""The figures that the cost model adds up: this device's, and the lanes'."""

from __future__ import annotations

from msgspec import Struct

from node.measures.peers import PeerFigures
from node.model.waves import MOST_WAVES


class Line(Struct, frozen=True):
    """Seconds that grow with an amount."""

    base_s: float
    each_s: float

    def at(self, amount: float) -> float:
        return self.base_s + self.each_s * amount


class DeviceFigures(Struct, frozen=True):
    """The times of this device for one model."""

    ends_s: float
    """Embedding and final norm of one pass, and what the head needs beside its linear sums."""
    head_s: float
    """The head's linear sums of one row."""
    layer_float_s: Line
    """Norms, attention and the like of one decoder layer, by rows (short contexts)."""
    linear_s: Line
    """One multiply-accumulate of a linear layer, by the rows that share it."""
    field_macs_per_s: float
    """Products of pads with many rows."""
    exchange_s: Line
    """The client's own work for one chunk, by elements of share and result."""
    most_waves: int = MOST_WAVES
    """Into how many waves a long pass is cut."""

    @property
    def row_macs_per_s(self) -> float:
        """Multiply-accumulates a second with one row."""
        return 1.0 / max(self.linear_s.at(1), 1e-15)


class LaneFigures(Struct, frozen=True):
    """The expected figures of a lane."""

    share: PeerFigures
    guard: PeerFigures | None
    """The figures of the peer that makes the pads; None if none does."""
    units: frozenset[bytes] | None = None
    """Hashes of the units that it covers; None for all."""

    def is_known(self, num_bytes: int) -> bool:
        """Whether exchanges of so many bytes are predicted from what was measured of both its peers."""
        return self.share.is_known(num_bytes) and (self.guard is None or self.guard.is_known(num_bytes))
