"""What peers are sent depends on the bucket of a pass, never on what is in its rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from checked_swarm import FOREVER, UNITS, check, swarm_of
from made_parts import KERNELS, make_rows

from node.execution.distributed import execute_distributed
from protocol.linear.field import Floats
from protocol.linear.messages import Linear

PASSES = (9, 1, 3, 40)
Content = Callable[[int, int], Floats]


def usual(num_rows: int, num_inputs: int) -> Floats:
    return make_rows(num_rows, num_inputs).astype(np.float32)


def outlier(num_rows: int, num_inputs: int) -> Floats:
    """One element that dwarfs all others, as in rows of the first token and of delimiters."""
    rows = usual(num_rows, num_inputs) * np.float32(1e-3)
    rows[-1, num_inputs // 2] = 1e7
    return rows


def only_outliers(num_rows: int, num_inputs: int) -> Floats:
    rows = np.zeros((num_rows, num_inputs), np.float32)
    rows[:, 0] = -1e7
    return rows


def a_row_of_zeros(num_rows: int, num_inputs: int) -> Floats:
    rows = usual(num_rows, num_inputs)
    rows[0] = 0
    return rows


CONTENTS: dict[str, Content] = {
    "one outlier": outlier,
    "outliers alone": only_outliers,
    "a row of zeros": a_row_of_zeros,
    "zeros": lambda num_rows, num_inputs: np.zeros((num_rows, num_inputs), np.float32),
    "equal rows": lambda num_rows, num_inputs: np.repeat(usual(1, num_inputs), num_rows, axis=0),
    "tiny": lambda num_rows, num_inputs: usual(num_rows, num_inputs) * np.float32(1e-30),
}


def sent(mode: str, content: Content) -> list[list[Any]]:
    """By peer, the forms of all messages in their order: everything but the elements and the random numbers."""
    with swarm_of(mode, [["honest", "honest"]], FOREVER) as swarm:
        for num_rows in PASSES:
            swarm.manager.hear()
            swarm.manager.begin_step(num_rows, UNITS)
            for unit in UNITS:
                rows, _scales = KERNELS.quantize(content(num_rows, unit.ref.num_inputs), unit.max_row_norm)
                sums = execute_distributed(swarm.manager, unit, rows)
                assert np.array_equal(sums, KERNELS.linear_a12(unit.weights, rows))
        assert swarm.manager.counts.local == 0
        check(swarm)
        return [[_form(received.message) for received in peer.heard] for peer in swarm.peers]


def _form(message: Any) -> Any:
    assert isinstance(message, Linear)
    binding = message.binding
    shape = None if message.rows is None else message.rows.shape
    return binding.role, binding.unit, binding.row_start, binding.row_end, binding.tile_start, binding.tile_end, shape


@pytest.mark.parametrize("mode", ["split", "strict"])
@pytest.mark.parametrize("name", CONTENTS)
def test_rows_of_any_content_are_sent_alike(name: str, mode: str) -> None:
    assert sent(mode, CONTENTS[name]) == sent(mode, usual)
