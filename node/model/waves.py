"""Waves: groups of rows of one pass that go through the same layers, one behind the other.

While others compute the sums of one wave, this device does its own part of the next. A wave is never ahead of one
before it, so keys and values of earlier tokens are there when a later token attends to them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence

from node.kernels.interface import NotFiniteError
from node.model.linear import Following, LinearExecutor, SumsUnderWay, Wanted, WentOn
from protocol.linear.field import Sums

MOST_WAVES = 4
"""Eight gained nothing: their messages cost what they saved (`scripts/bench trace --rows 512`)."""

Asking = Generator[Wanted, Sums | WentOn, None]
"""Rows on their way through layers: it asks for the sums of a unit for some rows, and goes on with these."""


def go_through(rows: Asking, executor: LinearExecutor) -> None:
    """All rows of a pass together. Raises what the executor raises, and NotFiniteError."""
    following: Following | None = None
    try:
        wanted = next(rows)
        while True:
            now, following = following, None  # what is being settled cancels itself
            sums, following = executor.linear_onward(wanted) if now is None else now.settle_onward(wanted)
            wanted = rows.send(sums)
    except StopIteration:
        pass
    finally:
        try:
            if following is not None:
                following.cancel()
        finally:
            rows.close()


def go_through_in_waves(waves: Sequence[Asking], firsts: Sequence[int], executor: LinearExecutor) -> None:
    """Rows of a pass in several waves, in turn; raises as `go_through`.

    Args:
        firsts: the first row of each wave, by which an error names a row of the pass.
    """
    under_way: deque[tuple[int, SumsUnderWay]] = deque()

    def go_on(wave: int, sums: Sums | None) -> None:
        try:
            wanted = waves[wave].send(sums)  # type: ignore[arg-type]  # None begins it
        except StopIteration:
            return
        except NotFiniteError as exc:
            raise NotFiniteError(firsts[wave] + exc.row) from exc
        under_way.append((wave, executor.begin(wanted.unit, wanted.rows, wave)))

    try:
        for wave in range(len(waves)):
            go_on(wave, None)
        while under_way:
            wave, sums = under_way.popleft()
            go_on(wave, sums.settle())
    finally:
        for _wave, sums in under_way:
            sums.cancel()
        for rows in waves:
            rows.close()
