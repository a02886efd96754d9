"""`FusedLayers` in C: the structures of layer.h, filled from arrays that stay alive as long as they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from node.kernels.interface import ACTIVATIONS, Int16s, NotFiniteError
from node.kernels.layers import (
    MAX_ROTATIONS,
    NUM_UNITS,
    LayerParts,
    LayerPlace,
    LayerShape,
    Passage,
    PassRows,
    check_shapes,
)
from protocol.linear.field import Sums

NOT_FINITE, NO_MEMORY = -1, -2
"""As in layer.h."""
KEPT_ROWS = 16
"""Buffers for passes of so many rows, at most, are kept for the next pass."""
NS = 1e-9


class Extension(Protocol):
    """The extension module at one level, with its threads."""

    lib: Any
    ffi: Any
    level: int
    team: Any

    def pointer(self, array: NDArray[Any]) -> Any: ...


class NativeLayers:
    """`FusedLayers` of the C backend."""

    def __init__(self, extension: Extension, layers: Sequence[LayerParts], shape: LayerShape) -> None:
        self._extension = extension
        self._layers, self._shape = layers, shape
        ffi = extension.ffi
        self._structs = ffi.new("struct layer[]", len(layers))
        self._run = ffi.new("struct layer_run *")
        self._address = int(ffi.cast("uintptr_t", self._run))
        self._alive: list[Any] = []
        """What the layers point to."""
        self._pass: list[Any] = []
        """What the pass points to."""
        self._weights = [self._fill(struct, layer) for struct, layer in zip(self._structs, layers, strict=True)]
        self._here: tuple[bool, ...] = ()
        self._rows = np.empty(0, np.int16)
        self._buffers: list[Any] = []
        self._num_rows = 0
        self._fill_run()

    def _fill(self, struct: Any, layer: LayerParts) -> list[Any]:
        """Fill the structure of a layer; returns pointers to the weights of its units, which a pass may use."""
        check_shapes(layer, self._shape)
        weights = []
        for unit, part in zip(struct.units, layer.units, strict=True):
            unit.scales, unit.bias = self._kept(part.scales), self._kept(part.bias)
            unit.max_row_norm = part.max_row_norm
            unit.num_outputs, unit.num_inputs = part.num_outputs, part.num_inputs
            weights.append(self._kept(part.weights))
        for name in ("attention_norm", "mlp_norm", "attention_after", "mlp_after", "q_norm", "k_norm"):
            setattr(struct, name, self._kept(getattr(layer, name)))
        struct.q_norm_size = 0 if layer.q_norm is None else len(layer.q_norm)
        struct.k_norm_size = 0 if layer.k_norm is None else len(layer.k_norm)
        struct.window = layer.window or 0
        struct.rotation = -1 if layer.rotation is None else layer.rotation
        return weights

    def _fill_run(self) -> None:
        run, shape = self._run, self._shape
        run.layers = self._structs
        run.hidden_size, run.head_size = shape.hidden_size, shape.head_size
        run.num_heads, run.num_groups = shape.num_heads, shape.num_groups
        run.epsilon, run.scale, run.softcap = shape.epsilon, shape.scale, shape.softcap or 0.0
        run.residual_multiplier = shape.residual_multiplier
        run.activation = ACTIVATIONS.index(shape.activation)

    def _kept(self, array: NDArray[Any] | None) -> Any:
        if array is None:
            return self._extension.ffi.NULL
        pointer = self._extension.pointer(np.ascontiguousarray(array))
        self._alive.append(pointer)
        return pointer

    def begin(self, rows: PassRows, here: Sequence[bool]) -> None:
        run = self._run
        self._choose(tuple(here))
        self._make_room(len(rows.hidden))
        run.linear_ns = 0
        blocks = self._extension.ffi.new("struct layer_block[]", len(rows.blocks))
        self._pass = [rows, blocks]
        for block, part in zip(blocks, rows.blocks, strict=True):
            block.start, block.stop = part.start, part.stop
            block.stride = part.num_slots * self._shape.head_size
            block.keys, block.values = self._passing(part.keys), self._passing(part.values)
        run.blocks, run.num_blocks = blocks, len(rows.blocks)
        run.hidden, run.positions = self._passing(rows.hidden), self._passing(rows.positions)
        if len(rows.rotations) > MAX_ROTATIONS:
            raise ValueError(f"a model of {len(rows.rotations)} rotations, {MAX_ROTATIONS} at most")
        for index, (cos, sin) in enumerate(rows.rotations):
            run.cos[index], run.sin[index] = self._passing(cos), self._passing(sin)
            run.half[index] = cos.shape[1]

    def _passing(self, array: NDArray[Any]) -> Any:
        pointer = self._extension.pointer(array)
        self._pass.append(pointer)
        return pointer

    def _choose(self, here: tuple[bool, ...]) -> None:
        """Give the layers the weights that this pass uses here."""
        if here == self._here:
            return
        flags = iter(here)
        for struct, weights in zip(self._structs, self._weights, strict=True):
            for unit, pointer in zip(struct.units, weights, strict=True):
                unit.weights = pointer if next(flags) else self._extension.ffi.NULL
        self._here = here

    def _make_room(self, num_rows: int) -> None:
        """Buffers for the rows of a pass; those of few rows are kept."""
        if num_rows == self._num_rows and self._buffers:
            return
        units, shape = [unit for layer in self._layers for unit in layer.units], self._shape
        width = max((unit.num_inputs for unit in units), default=0)
        outputs = max((unit.num_outputs for unit in units), default=0)
        heads = shape.num_heads * shape.head_size
        self._buffers = []  # where memory runs out below, nothing of before is used again
        rows = np.empty(num_rows * width, np.int16)
        normed = num_rows * (heads + shape.num_groups * shape.head_size)
        arrays: dict[str, NDArray[Any]] = {
            "rows": rows,
            "row_scales": np.empty(num_rows, np.float32),
            "sums": np.empty(num_rows * outputs, np.int32),
            "floats": np.empty(num_rows * outputs, np.float32),
            "mixed": np.empty(num_rows * heads, np.float32),
            "normed": np.empty(normed, np.float32),
        }
        buffers = [self._extension.pointer(array) for array in arrays.values()]
        for name, buffer in zip(arrays, buffers, strict=True):
            setattr(self._run, name, buffer)
        self._run.num_rows = self._num_rows = num_rows
        self._buffers, self._rows = buffers, rows

    def layer(self, index: int, cached: int, unit: int = 0, sums: Sums | None = None) -> int | None:
        extension = self._extension
        given = extension.ffi.NULL if sums is None else extension.pointer(sums)
        return self.reached(
            extension.lib.kernel_layer(extension.level, extension.team, self._run, index, cached, unit, given)
        )

    def passage(self, at: LayerPlace, to: LayerPlace) -> Passage:
        return Passage(self._address, at, to)

    def reached(self, code: int) -> int | None:
        if code == NOT_FINITE:
            raise NotFiniteError(self._run.bad_row)
        if code == NO_MEMORY:
            raise MemoryError("no memory for the workspace of a layer")
        return None if code == NUM_UNITS else code

    def end(self) -> None:
        """The pass has ended: what it pointed to may go."""
        self._pass = []
        if self._num_rows > KEPT_ROWS:
            self._buffers, self._rows = [], np.empty(0, np.int16)

    def rows(self, index: int, unit: int) -> Int16s:
        width = self._layers[index].units[unit].num_inputs
        return self._rows[: self._num_rows * width].reshape(self._num_rows, width)

    @property
    def linear_s(self) -> float:
        return float(self._run.linear_ns) * NS
