"""Rows of a pass in waves: the same bits as all together, whoever computes a unit and however long it takes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from test_model_decoder import FAMILIES
from test_model_fused import IDS, PartlyLent, assert_same, logits_of, models, steps

from node.kernels.interface import Int16s, NotFiniteError
from node.model.decoder import Decoder, Part, PartError
from node.model.linear import LocalLinear, SumsUnderWay
from node.model.unit import Unit
from node.store.stored import StoredModel
from protocol.linear.field import Sums

native = pytest.importorskip("node.kernels.native", reason="the C kernels are not built")

__all__ = ["models"]


class InWaves(PartlyLent):
    """Its sums come late: only when they are settled."""

    def __init__(self, kernels: native.NativeKernels, borders: Sequence[float], kinds: Sequence[str]) -> None:
        super().__init__(kernels, lambda unit: unit.ref.kind in kinds)
        self._borders = borders
        self.under_way: list[Later] = []
        self.most_under_way = 0
        self.begun: list[tuple[int, str]] = []
        self.fail_at = -1

    def begin_step(self, num_rows: int, units: Sequence[Unit], most_waves: int = 1) -> Sequence[range]:
        if most_waves == 1 or len(units) == 1:
            return [range(num_rows)]
        borders = [0, *(round(num_rows * border) for border in self._borders), num_rows]
        return [range(start, stop) for start, stop in pairwise(borders)]

    def begin(self, unit: Unit, rows: Int16s, wave: int) -> SumsUnderWay:
        self.begun.append((wave, unit.ref.name))
        if len(self.begun) == self.fail_at:
            raise ConnectionError("gone")
        self.under_way.append(Later(self, unit, rows))
        self.most_under_way = max(self.most_under_way, len(self.under_way))
        return self.under_way[-1]


class Later:
    """Sums that are computed when they are wanted, from the rows as they are then."""

    def __init__(self, executor: InWaves, unit: Unit, rows: Int16s) -> None:
        self._executor, self._unit, self._rows = executor, unit, rows

    def settle(self) -> Sums:
        self.cancel()
        return self._executor.linear(self._unit, self._rows)

    def cancel(self) -> None:
        self._executor.under_way.remove(self)


ALL = ("qkv", "o", "gate_up", "down")


@pytest.mark.parametrize("kinds", [ALL, ("gate_up", "down"), ("o",)])
@pytest.mark.parametrize("borders", [(0.5,), (0.1, 0.2, 0.9), (0.34, 0.67)])
@pytest.mark.parametrize("name", FAMILIES)
def test_waves_change_no_bit(
    models: dict[str, StoredModel],
    name: str,
    borders: Sequence[float],
    kinds: Sequence[str],
) -> None:
    kernels, model = native.NativeKernels(1), models[name]
    expected = logits_of(Decoder.of_units(model, steps(kernels), LocalLinear(kernels)))
    executor = InWaves(kernels, borders, kinds)
    assert_same(logits_of(Decoder.of_units(model, kernels, executor)), expected)
    assert executor.most_under_way == len(borders) + 1 and not executor.under_way


def test_waves_take_turns_and_none_overtakes(models: dict[str, StoredModel]) -> None:
    kernels = native.NativeKernels(1)
    executor = InWaves(kernels, (0.3, 0.6), ALL)
    decoder = Decoder.of_units(models["llama"], kernels, executor)
    decoder.forward(IDS, decoder.new_cache())
    units = [ref.name for ref in models["llama"].units if ref.layer is not None]
    assert executor.begun == [(wave, name) for name in units for wave in range(3)]


def test_sequences_that_a_border_cuts_do_not_touch_each_other(models: dict[str, StoredModel]) -> None:
    kernels, texts = native.NativeKernels(1), [IDS[:7], IDS[3:5], IDS[8:19]]
    alone = Decoder.of_units(models["llama"], kernels, LocalLinear(kernels))
    expected = [alone.forward(text, alone.new_cache()) for text in texts]
    decoder = Decoder.of_units(models["llama"], kernels, InWaves(kernels, (0.25, 0.5, 0.6), ALL))
    got = decoder.forward_parts([Part(text, decoder.new_cache()) for text in texts], [True] * 3)
    for one, other in zip(got, expected, strict=True):
        assert one is not None and one.tobytes() == other.tobytes()


def test_a_row_that_is_not_finite_is_named_by_its_place_in_the_pass(
    models: dict[str, StoredModel],
) -> None:
    kernels, model = native.NativeKernels(1), models["llama"]
    executor = InWaves(kernels, (0.25, 0.5), ALL)
    decoder = Decoder.of_units(model, kernels, executor)
    poisoned = lambda ids: np.where(np.array(ids)[:, None] == 4, np.float32(np.inf), model.embedding_rows(ids))  # noqa: E731
    decoder.model = type("Poisoned", (), {"embedding_rows": staticmethod(poisoned)})()
    parts = [Part([1, 2], decoder.new_cache()), Part([3, 9, 9, 5, 4, 9], decoder.new_cache())]
    with pytest.raises(PartError) as caught:
        decoder.forward_parts(parts, [True, True])
    assert caught.value.index == 1 and isinstance(caught.value.__cause__, NotFiniteError)
    assert caught.value.__cause__.row == 6 and parts[1].cache.length == 0
    assert not executor.under_way, "what was under way is cancelled"


def test_an_exception_cancels_what_is_under_way_and_does_no_harm(models: dict[str, StoredModel]) -> None:
    kernels = native.NativeKernels(1)
    executor = InWaves(kernels, (0.25, 0.5), ALL)
    decoder = Decoder.of_units(models["llama"], kernels, executor)
    cache = decoder.new_cache()
    for executor.fail_at in (2, 11):
        executor.begun.clear()
        with pytest.raises(ConnectionError):
            decoder.forward(IDS, cache)
        assert cache.length == 0 and not executor.under_way
    executor.fail_at = -1
    expected = Decoder.of_units(models["llama"], kernels, LocalLinear(kernels))
    assert decoder.forward(IDS, cache).tobytes() == expected.forward(IDS, expected.new_cache()).tobytes()
    (run,) = decoder._runs
    for fused in run._fused:  # type: ignore[attr-defined]
        assert fused._pass == [], "no pass holds on to its arrays"


def test_without_layers_in_c_a_pass_goes_in_one_wave(models: dict[str, StoredModel]) -> None:
    kernels = native.NativeKernels(1)
    executor = InWaves(kernels, (0.5,), ALL)
    decoder = Decoder.of_units(models["llama"], steps(kernels), executor)
    decoder.forward(IDS, decoder.new_cache())
    assert executor.asked and not executor.begun
