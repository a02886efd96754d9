"""The interface between the decoder and the executors that compute `W x`: here, by peers, or both.

Every executor returns the same integers, so the decoder cannot tell where they were computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from msgspec import Struct

from node.kernels.interface import Int16s, Kernels
from node.kernels.layers import Passage
from node.model.unit import Unit
from protocol.discreet import Discreet
from protocol.linear.field import Floats, Sums


class Continuation(Discreet, Struct, frozen=True):
    """How rows go on by themselves, without Python, once the sums of a unit are there."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("rows",)
    unit: Unit
    """Whose sums they want then."""
    rows: Int16s
    """[T, K]: where what it multiplies will be."""
    passage: Passage


class Wanted(Discreet, Struct, frozen=True):
    """The sums that rows on their way through layers want."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("rows",)
    unit: Unit
    rows: Int16s
    """[T, K]; they change when the sums are there."""
    then: Continuation | None = None


class WentOn(Struct, frozen=True):
    """Instead of sums: the rows have gone on with them."""

    index: int
    """The layer in which they are now, in the numbers of the passage,"""
    code: int
    """and what it has returned (`FusedLayers.reached`)."""


class Following(Protocol):
    """Sums that will be wanted next, for which everything is prepared, and which may be under way."""

    def settle_onward(self, wanted: Wanted) -> Progress:
        """As `LinearExecutor.linear_onward`."""
        ...

    def cancel(self) -> None:
        """They are not wanted any more."""
        ...


Progress = tuple[Sums | WentOn, Following | None]


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

    def linear_onward(self, wanted: Wanted) -> Progress:
        """The same for rows that may go on by themselves with the sums; also returns what was prepared for the next
        unit. Raises what `linear` raises."""
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

    def linear_onward(self, wanted: Wanted) -> Progress:
        """Nothing goes on by itself."""
        return self.linear(wanted.unit, wanted.rows), None

    def begin(self, unit: Unit, rows: Int16s, wave: int) -> SumsUnderWay:
        """At once."""
        return SumsHere(self.linear(unit, rows))
