"""The interface between the decoder and the executors that compute `W x`: here, by peers, or both.

Every executor returns the same integers, so the decoder cannot tell where they were computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from node.kernels.interface import Int16s, Kernels
from node.model.unit import Unit
from protocol.linear.field import Floats, Sums


class SumsUnderWay(Protocol):
    """The sums of a unit, which others may be computing."""

    def settle(self) -> Sums:
        """Wait for them; raises what `LinearExecutor.linear` raises."""
        ...

    def cancel(self) -> None:
        """They are not wanted any more."""
        ...


class LinearExecutor(Protocol):
    """Computes a unit's exact integer sums for rows of activations."""

    @property
    def wants_floats(self) -> bool:
        """Whether `linear` also needs the rows before quantization, because trusted devices quantize them."""

    def begin_step(self, num_rows: int, units: Sequence[Unit], most_waves: int = 1) -> Sequence[range]:
        """A step of a forward pass begins; called once, before its first `linear`.

        Args:
            num_rows: its rows, at most 512.
            units: the units that the step will use, in this order.
            most_waves: in how many groups, at most, the caller lets its rows go through the units.

        Returns:
            The rows of each group: one where the caller gains nothing by several. Of several, each goes through the
            same units in the same order, by `begin`.
        """
        ...

    def computed_here(self, units: Sequence[Unit]) -> Sequence[bool]:
        """For each unit, whether `linear` would only multiply by the weights of this device in this step."""
        ...

    def count_here(self, num_units: int, seconds: float) -> None:
        """So many units were computed here without `linear`."""
        ...

    def check_wanted(self) -> None:
        """Raises what `linear` raises where the step must end at once."""
        ...

    def went_through(self, num_rows: int) -> None:
        """So many rows of the step have gone through one more layer."""
        ...

    def linear(self, unit: Unit, rows: Int16s, floats: Floats | None = None) -> Sums:
        """W x in plain integers: rows i16[T, K], |x| <= 2047 and |W x| < p / 2 -> i32[T, N]; no bias, no scale.

        The caller may change the rows again when this returns.

        Args:
            floats: f32[T, K], the values before quantization, if they are wanted.
        """
        ...

    def begin(self, unit: Unit, rows: Int16s, wave: int) -> SumsUnderWay:
        """The same for one of several groups of rows, without waiting; raises what `linear` raises.

        Args:
            rows: i16[T, K]; they must not change until the sums are settled.
            wave: index of the group.
        """
        ...


class SumsHere(Struct, frozen=True):
    """Sums that are computed; `SumsUnderWay`."""

    sums: Sums

    def settle(self) -> Sums:
        return self.sums

    def cancel(self) -> None:
        """Nothing is under way."""


class LocalLinear:
    """The executor that computes everything here."""

    wants_floats = False

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels

    def begin_step(self, num_rows: int, units: Sequence[Unit], most_waves: int = 1) -> Sequence[range]:
        """All rows together: nobody else is waited for."""
        return [range(num_rows)]

    def computed_here(self, units: Sequence[Unit]) -> Sequence[bool]:
        return [unit.held is not None for unit in units]

    def count_here(self, num_units: int, seconds: float) -> None:
        """Counts nothing."""

    def check_wanted(self) -> None:
        """Nobody can end it."""

    def went_through(self, num_rows: int) -> None:
        """Nobody asks."""

    def linear(self, unit: Unit, rows: Int16s, floats: Floats | None = None) -> Sums:
        """W x by this machine's kernels."""
        return self._kernels.linear_a12(unit.weights, rows)

    def begin(self, unit: Unit, rows: Int16s, wave: int) -> SumsUnderWay:
        """At once."""
        return SumsHere(self.linear(unit, rows))
