"""Decoder layers that are computed here, except for their linear sums, which an executor computes (see `linear`).

Attention, norms and activations are row-invariant kernels: a token's hidden state is the same bits however the tokens
before it were cut into passes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

import numpy as np
from msgspec import Struct

from node.kernels.interface import Int16s, Kernels
from node.kernels.layers import (
    NUM_UNITS,
    CachedRows,
    FusedLayers,
    LayerParts,
    LayerPlace,
    LayerShape,
    LayerUnit,
    PassRows,
)
from node.model.config import LAYER_KINDS
from node.model.linear import Continuation, LinearExecutor, Wanted, WentOn
from node.model.parts import ModelParts
from node.model.rotation import Rotation
from node.model.run import Rows
from node.model.unit import Unit
from node.model.waves import MOST_WAVES, Asking, go_through, go_through_in_waves
from protocol.linear.field import Floats


class _Layer(Struct, frozen=True):
    """What one decoder layer needs, looked up once."""

    qkv: Unit
    o: Unit
    gate_up: Unit
    down: Unit
    parts: LayerParts
    """The same as a backend takes it, with norms, window and rotation."""


class UnitLayers:
    """A run of layers whose units an executor computes, one after the other; a `LayerRun`.

    Args:
        model: has the units of these layers, which are opened and checked here.
        layers: indices of consecutive layers.
    """

    def __init__(self, model: ModelParts, kernels: Kernels, executor: LinearExecutor, layers: range) -> None:
        self.layers = layers
        self._config = model.config
        self._executor = executor
        self._kernels = kernels
        self._layers = [_open_layer(model, layer) for layer in layers]
        self._units = [unit for layer in self._layers for unit in (layer.qkv, layer.o, layer.gate_up, layer.down)]
        scale = self._config.attention_scale
        self._scale = float(self._config.head_dim**-0.5) if scale is None else scale
        fused = self._new_fused()
        self._fused = [] if fused is None else [fused]
        """One for each wave of a pass, the further ones made when there are several; none where steps are single."""

    def _new_fused(self) -> FusedLayers | None:
        return self._kernels.fused_layers([layer.parts for layer in self._layers], self._shape)

    @property
    def _shape(self) -> LayerShape:
        config = self._config
        return LayerShape(
            hidden_size=config.hidden_size,
            num_heads=config.num_heads,
            num_groups=config.num_kv_heads,
            head_size=config.head_dim,
            epsilon=config.rms_norm_eps,
            scale=self._scale,
            softcap=config.attention_softcap,
            residual_multiplier=config.residual_multiplier,
            activation=config.activation,
        )

    def forward(self, hidden: Floats, rotations: Sequence[Rotation], blocks: Sequence[Rows]) -> Floats:
        """`LayerRun.forward`; raises what the executor raises."""
        waves, every = self._begin_step(len(hidden), MOST_WAVES), range(len(self._layers))
        if not self._goes_fused:
            self._go_single(every, hidden, rotations, blocks)
            return hidden
        whole = _pass_rows(hidden, rotations, blocks)
        if len(waves) == 1:
            go_through(self._asking(self._fused[0], whole, every, crosses=True), self._executor)
            return hidden
        while len(self._fused) < len(waves):
            another = self._new_fused()
            assert another is not None, "as the first"
            self._fused.append(another)
        each = zip(self._fused[: len(waves)], waves, strict=True)
        parts = [self._asking(fused, whole.part(rows), every) for fused, rows in each]
        go_through_in_waves(parts, [rows.start for rows in waves], self._executor)
        return hidden

    def steps(
        self, hidden: Floats, rotations: Sequence[Rotation], blocks: Sequence[Rows], pause: Callable[[], bool]
    ) -> Generator[None, None, Floats]:
        """The same as a generator, in one wave. It pauses after a layer where `pause` says so; meanwhile other rows
        may go through these layers."""
        self._begin_step(len(hidden), 1)
        places = _Places(len(self._layers), pause)
        while not places.are_done:
            if places.done:
                yield
            if self._goes_fused:
                rows = _pass_rows(hidden, rotations, blocks)
                go_through(self._asking(self._fused[0], rows, places), self._executor)
            else:
                self._go_single(places, hidden, rotations, blocks)
        return hidden

    def _begin_step(self, num_rows: int, most_waves: int) -> Sequence[range]:
        return self._executor.begin_step(num_rows, self._units, most_waves if self._fused else 1)

    @property
    def _goes_fused(self) -> bool:
        """Whether a layer is one call, and one more for each of its units that is lent."""
        return bool(self._fused) and not self._executor.wants_floats

    def _go_single(
        self, places: Iterable[int], hidden: Floats, rotations: Sequence[Rotation], blocks: Sequence[Rows]
    ) -> None:
        """All rows through layers, step by step."""
        for place in places:
            index, layer = self.layers[place], self._layers[place]
            mixed = self._attention(index, layer, hidden, rotations, blocks)
            hidden += self._added(self._float_linear(layer.o, mixed), layer.parts.attention_after)
            hidden += self._added(self._mlp(layer, hidden), layer.parts.mlp_after)
            self._executor.went_through(len(hidden))

    def _asking(self, fused: FusedLayers, rows: PassRows, places: Iterable[int], crosses: bool = False) -> Asking:
        """The rows through layers; asks for the sums of each unit that is lent.

        Args:
            crosses: whether they may go on by themselves from one layer into the next.
        """
        executor = self._executor
        here = executor.computed_here(self._units)
        fused.begin(rows, here)
        arrived: WentOn | None = None
        try:
            for place in places:
                index = self.layers[place]
                executor.check_wanted()
                wanted = fused.layer(place, index) if arrived is None else fused.reached(arrived.code)
                arrived = None
                while wanted is not None:
                    then = self._continuation(fused, here, LayerPlace(place, index, wanted), crosses)
                    unit = self._units[NUM_UNITS * place + wanted]
                    sums = yield Wanted(unit, fused.rows(place, wanted), then)
                    if not isinstance(sums, WentOn):
                        wanted = fused.layer(place, index, wanted, sums)
                    elif sums.index == place:
                        wanted = fused.reached(sums.code)
                    else:
                        arrived, wanted = sums, None
                executor.went_through(len(rows.positions))
            executor.count_here(sum(here), fused.linear_s)
        finally:
            fused.end()

    def _continuation(
        self, fused: FusedLayers, here: Sequence[bool], at: LayerPlace, crosses: bool
    ) -> Continuation | None:
        """How rows go on from a unit to the next one that is lent; None where that is not known."""
        first, last = NUM_UNITS * at.index, NUM_UNITS * (at.index + (2 if crosses else 1))
        for number in range(first + at.unit + 1, min(last, len(here))):
            if not here[number]:
                place, unit = divmod(number, NUM_UNITS)
                passage = fused.passage(at, LayerPlace(place, self.layers[place], unit))
                return Continuation(self._units[number], fused.rows(place, unit), passage)
        return None

    def _added(self, part: Floats, gain: Floats | None) -> Floats:
        """The output of attention or MLP as it is added to the hidden states."""
        if gain is not None:
            part = self._kernels.rms_norm(part, gain, self._config.rms_norm_eps)
        if self._config.residual_multiplier != 1.0:
            part *= np.float32(self._config.residual_multiplier)
        return part

    def _attention(
        self, index: int, layer: _Layer, hidden: Floats, rotations: Sequence[Rotation], blocks: Sequence[Rows]
    ) -> Floats:
        """Each part's attention over its cache, which first gets the new keys and values: f32[T, H * d]."""
        config = self._config
        num_rows, num_heads, num_groups = len(hidden), config.num_heads, config.num_kv_heads
        heads = self._normed_linear(layer.qkv, hidden, layer.parts.attention_norm).reshape(
            num_rows, -1, config.head_dim
        )
        queries = self._normed(heads[:, :num_heads], layer.parts.q_norm)
        new_keys = self._normed(heads[:, num_heads : num_heads + num_groups], layer.parts.k_norm)
        if layer.parts.rotation is not None:
            rotation, together = rotations[layer.parts.rotation], heads[:, : num_heads + num_groups]
            for part in (together,) if layer.parts.q_norm is None else (queries, new_keys):  # normed ones are copies
                self._kernels.rope(part, rotation.cos, rotation.sin)
        new_values = heads[:, num_heads + num_groups :]
        mixed = [
            self._attend(
                index, layer.parts.window, block, queries, new_keys, new_values
            )  # each sees its own sequence
            for block in blocks
        ]
        return mixed[0] if len(mixed) == 1 else np.concatenate(mixed)

    def _attend(
        self, index: int, window: int | None, block: Rows, queries: Floats, new_keys: Floats, new_values: Floats
    ) -> Floats:
        """Attention of one part's rows: f32[t, H * d]."""
        keys, values = block.cache.keys[index], block.cache.values[index]
        start, stop = int(block.positions[0]), int(block.positions[-1]) + 1
        keys[:, start:stop] = new_keys[block.start : block.stop].transpose(1, 0, 2)
        values[:, start:stop] = new_values[block.start : block.stop].transpose(1, 0, 2)
        rows = queries[block.start : block.stop]
        softcap = self._config.attention_softcap
        return self._kernels.attention(rows, keys, values, block.positions, window, self._scale, softcap)

    def _normed(self, heads: Floats, gain: Floats | None) -> Floats:
        """Heads [T, H, d], RMS-normed per head or all together if the model does so (a copy), else unchanged."""
        if gain is None:
            return heads
        flat = np.ascontiguousarray(heads).reshape(-1, len(gain))
        return self._kernels.rms_norm(flat, gain, self._config.rms_norm_eps).reshape(heads.shape)

    def _mlp(self, layer: _Layer, hidden: Floats) -> Floats:
        gate_up, activation = (
            self._normed_linear(layer.gate_up, hidden, layer.parts.mlp_norm),
            self._config.activation,
        )
        if self._executor.wants_floats:
            return self._float_linear(layer.down, self._kernels.gated(gate_up, activation))
        return self._linear(layer.down, *self._kernels.gated_quantize(gate_up, layer.down.max_row_norm, activation))

    def _normed_linear(self, unit: Unit, hidden: Floats, gain: Floats | None) -> Floats:
        """A linear layer of rows that are RMS-normed first if the model does so. The bits are the same whether or not
        the executor wants the rows as floats."""
        kernels, epsilon = self._kernels, self._config.rms_norm_eps
        if gain is None:
            return self._float_linear(unit, hidden)
        if self._executor.wants_floats:
            return self._float_linear(unit, kernels.rms_norm(hidden, gain, epsilon))
        return self._linear(unit, *kernels.norm_quantize(hidden, gain, epsilon, unit.max_row_norm))

    def _float_linear(self, unit: Unit, floats: Floats) -> Floats:
        rows, scales = self._kernels.quantize(floats, unit.max_row_norm)
        return self._linear(unit, rows, scales, floats)

    def _linear(self, unit: Unit, rows: Int16s, scales: Floats, floats: Floats | None = None) -> Floats:
        sums = self._executor.linear(unit, rows, floats)
        return self._kernels.dequantize(sums, scales, unit.scales, unit.bias)


class _Places:
    """The places of layers in a run, one after the other, up to where `pause` says so; next time it goes on there."""

    def __init__(self, count: int, pause: Callable[[], bool]) -> None:
        self.done = 0
        self._count, self._pause = count, pause

    @property
    def are_done(self) -> bool:
        return self.done == self._count

    def __iter__(self) -> Iterator[int]:
        while not self.are_done:
            yield self.done
            self.done += 1
            if self._pause():
                return


def _pass_rows(hidden: Floats, rotations: Sequence[Rotation], blocks: Sequence[Rows]) -> PassRows:
    """The rows of a pass as a backend takes them."""
    positions = blocks[0].positions if len(blocks) == 1 else np.concatenate([block.positions for block in blocks])
    cached = [CachedRows(block.start, block.stop, *block.cache.addresses, block.cache.num_slots) for block in blocks]
    return PassRows(hidden, positions, cached, [(rotation.cos, rotation.sin) for rotation in rotations])


def _open_layer(model: ModelParts, layer: int) -> _Layer:
    config = model.config
    before, after = config.norms != "after", config.norms != "before"
    units = [model.unit(layer, kind) for kind in LAYER_KINDS]
    qkv, o, gate_up, down = units
    parts = LayerParts(
        units=tuple(
            LayerUnit(unit.held, unit.scales, unit.bias, unit.max_row_norm, unit.ref.num_outputs, unit.ref.num_inputs)
            for unit in units
        ),
        attention_norm=model.norm(layer, "attention") if before else None,
        mlp_norm=model.norm(layer, "mlp") if before else None,
        attention_after=model.norm(layer, "attention_after") if after else None,
        mlp_after=model.norm(layer, "mlp_after") if after else None,
        q_norm=model.norm(layer, "q") if config.qk_norm else None,
        k_norm=model.norm(layer, "k") if config.qk_norm else None,
        window=config.window(layer),
        rotation=config.rotation(layer),
    )
    return _Layer(qkv, o, gate_up, down, parts)
