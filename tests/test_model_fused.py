"""Layers in one call each: the same bits as step by step, wherever units are computed, and in any company."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from test_model_checkpoints import write_checkpoint
from test_model_decoder import FAMILIES

from node.errors import CorruptModelError
from node.kernels.delegating import DelegatingKernels
from node.kernels.interface import Int16s, Kernels, NotFiniteError
from node.kernels.native_layers import KEPT_ROWS
from node.model.decoder import Decoder, Part, PartError
from node.model.layers import UnitLayers
from node.model.linear import LocalLinear
from node.model.unit import Unit
from node.store.library import Library
from node.store.stored import StoredModel
from protocol.linear.field import Floats, Sums

native = pytest.importorskip("node.kernels.native", reason="the C kernels are not built")
library = pytest.importorskip("node.kernels.native_library")

IDS = [5, 9, 2, 61, 7, 7, 33, 12, 70, 3, 44, 8, 19, 25, 31, 6, 2, 40, 77, 1]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StoredModel]:
    root = tmp_path_factory.mktemp("families")
    return {
        name: Library(root / "models").resolve(write_checkpoint(root / name, overrides))
        for name, overrides in FAMILIES.items()
    }


class PartlyLent(LocalLinear):
    """An executor that is asked for some units, as if peers computed them."""

    def __init__(self, kernels: Kernels, is_lent: Callable[[Unit], bool]) -> None:
        super().__init__(kernels)
        self._is_lent = is_lent
        self.asked: list[str] = []
        self.counted = 0

    def computed_here(self, units: Sequence[Unit]) -> Sequence[bool]:
        return [not self._is_lent(unit) for unit in units]

    def count_here(self, num_units: int, seconds: float) -> None:
        self.counted += num_units
        assert seconds >= 0.0

    def linear(self, unit: Unit, rows: Int16s, floats: Floats | None = None) -> Sums:
        if unit.ref.layer is not None:
            self.asked.append(unit.ref.name)
        return super().linear(unit, rows, floats)


def steps(kernels: Kernels) -> Kernels:
    """The same kernels, one step at a time."""
    return DelegatingKernels(kernels)


def logits_of(decoder: Decoder) -> list[Any]:
    """Logits of a text in two passes, then of single tokens."""
    cache = decoder.new_cache()
    found = [decoder.forward(IDS[:13], cache, all_logits=True), decoder.forward(IDS[13:16], cache, all_logits=True)]
    found += [decoder.forward([token_id], cache) for token_id in IDS[16:]]
    return [*found, *cache.keys, *cache.values]


def assert_same(first: Sequence[Any], second: Sequence[Any]) -> None:
    for one, other in zip(first, second, strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_the_same_bits(models: dict[str, StoredModel], name: str) -> None:
    kernels = native.NativeKernels(1)
    model = models[name]
    expected = logits_of(Decoder.of_units(model, steps(kernels), LocalLinear(kernels)))
    assert_same(logits_of(Decoder.of_units(model, kernels, LocalLinear(kernels))), expected)
    executor = PartlyLent(kernels, lambda unit: unit.ref.kind in ("gate_up", "down"))
    assert_same(logits_of(Decoder.of_units(model, kernels, executor)), expected)
    assert executor.asked[:4] == ["0.gate_up", "0.down", "1.gate_up", "1.down"]
    assert executor.counted == 2 * model.config.num_layers * 6, "qkv and o, in six passes"
    everything = PartlyLent(kernels, lambda unit: True)
    assert_same(logits_of(Decoder.of_units(model, kernels, everything)), expected)
    assert len(everything.asked) == 4 * model.config.num_layers * 6 and everything.counted == 0


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_levels_and_threads_change_no_bit(models: dict[str, StoredModel], threads: int) -> None:
    model = models["gemma3"] if "gemma3" in models else models["llama"]
    expected = logits_of(
        Decoder.of_units(model, steps(native.NativeKernels(1)), LocalLinear(native.NativeKernels(1)))
    )
    for level in library.native_levels():
        kernels = native.NativeKernels(threads, level)
        assert_same(logits_of(Decoder.of_units(model, kernels, LocalLinear(kernels))), expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_sequences_in_one_pass_do_not_touch_each_other(models: dict[str, StoredModel], name: str) -> None:
    kernels = native.NativeKernels(2)
    decoder = Decoder.of_units(models[name], kernels, LocalLinear(kernels))
    alone = [decoder.new_cache() for _ in range(3)]
    texts = [IDS[:7], IDS[3:5], IDS[8:19]]
    expected = [decoder.forward(text, cache) for text, cache in zip(texts, alone, strict=True)]
    expected += [decoder.forward([number], cache) for number, cache in enumerate(alone)]
    shared = [decoder.new_cache() for _ in range(3)]
    got = decoder.forward_parts([Part(text, cache) for text, cache in zip(texts, shared, strict=True)], [True] * 3)
    got += decoder.forward_parts([Part([number], cache) for number, cache in enumerate(shared)], [True] * 3)
    for one, other in zip(got, expected, strict=True):
        assert one is not None and one.tobytes() == other.tobytes()


def test_a_row_that_is_not_finite_is_named_and_the_caches_stay(models: dict[str, StoredModel]) -> None:
    kernels = native.NativeKernels(2)
    decoder = Decoder.of_units(models["llama"], kernels, LocalLinear(kernels))
    parts = [Part([1, 2], decoder.new_cache()), Part([3, 4, 5], decoder.new_cache())]
    expected = decoder.forward([1, 2], decoder.new_cache())
    embedding = models["llama"].embedding_rows
    poisoned = lambda ids: np.where(np.array(ids)[:, None] == 4, np.float32(np.inf), embedding(ids))  # noqa: E731
    decoder.model = type("Poisoned", (), {"embedding_rows": staticmethod(poisoned)})()
    with pytest.raises(PartError) as caught:
        decoder.forward_parts(parts, [True, True])
    assert caught.value.index == 1 and isinstance(caught.value.__cause__, NotFiniteError)
    assert caught.value.__cause__.row == 3 and parts[0].cache.length == 0
    assert decoder.forward([1, 2], parts[0].cache).tobytes() == expected.tobytes()


def test_a_long_pass_keeps_no_memory_and_an_exception_of_a_peer_does_no_harm(
    models: dict[str, StoredModel],
) -> None:
    kernels = native.NativeKernels(1)

    class Fails(PartlyLent):
        left = 3

        def linear(self, unit: Unit, rows: Int16s, floats: Floats | None = None) -> Sums:
            self.left -= 1
            if self.left == 0:
                raise ConnectionError("gone")
            return super().linear(unit, rows, floats)

    executor = Fails(kernels, lambda unit: True)
    decoder = Decoder.of_units(models["llama"], kernels, executor)
    cache = decoder.new_cache()
    with pytest.raises(ConnectionError):
        decoder.forward(IDS, cache)
    assert cache.length == 0
    expected = Decoder.of_units(models["llama"], steps(kernels), LocalLinear(kernels))
    assert decoder.forward(IDS, cache).tobytes() == expected.forward(IDS, expected.new_cache()).tobytes()
    fused = decoder._runs[0]._fused[0]  # type: ignore[attr-defined]
    assert len(IDS) > KEPT_ROWS and fused._buffers == [] and fused._rows.size == 0 and fused._pass == []


def test_a_context_that_grows_moves_the_cache(models: dict[str, StoredModel], tmp_path: Path) -> None:
    model = Library(tmp_path / "models").resolve(
        write_checkpoint(tmp_path / "long", {"max_position_embeddings": 2048})
    )
    kernels = native.NativeKernels(1)
    fused = Decoder.of_units(model, kernels, LocalLinear(kernels))
    single = Decoder.of_units(model, steps(kernels), LocalLinear(kernels))
    ids = [(7 * i) % 79 for i in range(600)]
    one, other = fused.new_cache(), single.new_cache()
    for cut in (slice(0, 500), slice(500, 513), slice(513, 600)):
        assert fused.forward(ids[cut], one).tobytes() == single.forward(ids[cut], other).tobytes()
    assert fused.forward([3], one).tobytes() == single.forward([3], other).tobytes()


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("llama", "layers.0.norm.attention"),
        ("qwen3", "layers.0.norm.q"),
        ("qwen2", "layers.0.bias.qkv"),
        ("llama", "final_norm"),
    ],
)
@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_a_model_whose_tensors_have_other_sizes_is_refused(
    models: dict[str, StoredModel], monkeypatch: pytest.MonkeyPatch, name: str, tensor: str, size: int
) -> None:
    """Found in a review: whoever publishes a model chooses them, and C would read or write beyond them."""
    model = StoredModel(models[name].path)
    known = dict(model._client.tensors)
    assert tensor in known, sorted(known)
    monkeypatch.setattr(model._client, "tensors", known | {tensor: replace(known[tensor], shape=(size,))})
    kernels = native.NativeKernels(1)
    with pytest.raises(CorruptModelError, match="of shape"):
        Decoder.of_units(model, kernels, LocalLinear(kernels))


def test_parts_that_do_not_fit_are_refused_before_c_sees_them(models: dict[str, StoredModel]) -> None:
    kernels = native.NativeKernels(1)
    layers = UnitLayers(models["qwen3"], kernels, LocalLinear(kernels), range(1))
    shape, (layer,) = layers._shape, layers._fused[0]._layers  # type: ignore[union-attr]
    wrong = np.ones(3, np.float32)
    unit = layer.units[0]
    for changes in (
        {"attention_norm": wrong},
        {"q_norm": wrong},
        {"units": (replace(unit, bias=wrong), *layer.units[1:])},
        {"units": (replace(unit, scales=wrong), *layer.units[1:])},
        {"units": (replace(unit, num_outputs=4), *layer.units[1:])},
    ):
        with pytest.raises(ValueError, match="shape"):
            kernels.fused_layers([replace(layer, **changes)], shape)
