"""What a backend needs to compute whole decoder layers in one call each: their parts, and the rows of a pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from node.kernels.interface import Activation, Int16s, Int64s
from protocol.discreet import Discreet
from protocol.linear.field import Floats, Sums, Weights

NUM_UNITS = 4
"""qkv, o, gate_up and down, in this order."""
MAX_ROTATIONS = 4


class LayerUnit(Struct, frozen=True):
    """One linear layer."""

    weights: Weights | None
    """[N, K]; None if they are not here."""
    scales: Floats
    """[N]"""
    bias: Floats | None
    """[N]"""
    max_row_norm: float
    num_outputs: int
    num_inputs: int


class LayerParts(Struct, frozen=True):
    """One decoder layer."""

    units: tuple[LayerUnit, ...]
    """NUM_UNITS of them."""
    attention_norm: Floats | None
    """[D]; None: the rows are not normed before."""
    mlp_norm: Floats | None
    attention_after: Floats | None
    """[D]; None: what is added to the hidden states is not normed."""
    mlp_after: Floats | None
    q_norm: Floats | None
    """[d] or [H * d]; None: heads are not normed."""
    k_norm: Floats | None
    window: int | None
    rotation: int | None
    """Index of the rotation of its heads; None: they are not rotated."""


class LayerShape(Struct, frozen=True):
    """What all layers of a model have in common."""

    hidden_size: int
    num_heads: int
    num_groups: int
    head_size: int
    epsilon: float
    scale: float
    softcap: float | None
    residual_multiplier: float
    activation: Activation


def check_shapes(layer: LayerParts, shape: LayerShape) -> None:
    """Raises ValueError where the arrays of a layer do not fit together: C would read or write beyond them."""
    hidden, heads = shape.hidden_size, shape.num_heads * shape.head_size
    keys = shape.num_groups * shape.head_size
    down = layer.units[-1]
    sizes = [(unit.num_outputs, unit.num_inputs) for unit in layer.units]
    expected = [(heads + 2 * keys, hidden), (hidden, heads), (2 * down.num_inputs, hidden), (hidden, down.num_inputs)]
    if sizes != expected:
        raise ValueError(f"units of shapes {sizes} do not make a layer; expected {expected}")
    for unit in layer.units:
        wanted = {"weights": (unit.num_outputs, unit.num_inputs), "scales": (unit.num_outputs,)}
        for name, array in (("weights", unit.weights), ("scales", unit.scales), ("bias", unit.bias)):
            if array is not None and array.shape != wanted.get(name, (unit.num_outputs,)):
                raise ValueError(f"{name} of shape {array.shape} do not fit a unit of {unit.num_outputs} outputs")
    for gain in (layer.attention_norm, layer.mlp_norm, layer.attention_after, layer.mlp_after):
        if gain is not None and gain.shape != (hidden,):
            raise ValueError(f"a norm of shape {gain.shape} does not fit {hidden} features")
    for gain, whole in ((layer.q_norm, heads), (layer.k_norm, keys)):
        if gain is not None and gain.shape not in ((shape.head_size,), (whole,)):
            raise ValueError(f"a norm of shape {gain.shape} does not fit heads of {shape.head_size}")


class CachedRows(Struct, frozen=True):
    """Rows [start, stop) of a pass, and the cache of their sequence."""

    start: int
    stop: int
    keys: NDArray[np.uint64]
    """[L]: by layer, the address of f32[G, S, d]."""
    values: NDArray[np.uint64]
    num_slots: int
    """S."""

    def part(self, rows: range) -> CachedRows:
        """What lies in these rows of the pass, counted from the first of them."""
        start, stop = max(self.start, rows.start) - rows.start, min(self.stop, rows.stop) - rows.start
        return CachedRows(start, stop, self.keys, self.values, self.num_slots)


class PassRows(Struct, frozen=True):
    """The rows of one pass."""

    hidden: Floats
    """[T, D], C-contiguous; it is overwritten."""
    positions: Int64s
    """[T]"""
    blocks: Sequence[CachedRows]
    """In order; together they are all rows."""
    rotations: Sequence[tuple[Floats, Floats]]
    """Cosine and sine [T, r / 2] of each rotation."""

    def part(self, rows: range) -> PassRows:
        """Consecutive rows of them."""
        own = slice(rows.start, rows.stop)
        blocks = [block.part(rows) for block in self.blocks if block.start < rows.stop and rows.start < block.stop]
        rotations = [(cos[own], sin[own]) for cos, sin in self.rotations]
        return PassRows(self.hidden[own], self.positions[own], blocks, rotations)


class LayerPlace(Struct, frozen=True):
    """A unit of a layer."""

    index: int
    """Of the layer,"""
    cached: int
    """and in the caches."""
    unit: int


class Passage(Discreet, Struct, frozen=True):
    """From one unit whose sums come from elsewhere to the next one, for C code that calls `kernel_layer` itself."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("run",)
    run: int
    """Address of the `struct layer_run` of a pass."""
    at: LayerPlace
    to: LayerPlace
    """In the same layer, or in the next one."""


class FusedLayers(Protocol):
    """Layers that a backend computes in one call each. One pass at a time; the bits are those of the single steps."""

    def begin(self, rows: PassRows, here: Sequence[bool]) -> None:
        """A pass begins. Its arrays must live until its last layer.

        Args:
            here: for each unit of each layer, in order, whether it is computed here.
        """
        ...

    def layer(self, index: int, cached: int, unit: int = 0, sums: Sums | None = None) -> int | None:
        """A layer from its beginning on, or from the sums [T, N] of one of its units on. Returns None at its end, or
        the unit whose sums are wanted next: `rows` gives what they are of.

        Args:
            cached: index of the layer in the caches.

        Raises:
            NotFiniteError: a row of the pass.
        """
        ...

    def passage(self, at: LayerPlace, to: LayerPlace) -> Passage:
        """For whoever calls the layers of this pass itself; what that returned goes to `reached`."""
        ...

    def reached(self, code: int) -> int | None:
        """What `layer` returns, or raises, where C code has called it."""
        ...

    def rows(self, index: int, unit: int) -> Int16s:
        """The rows [T, K] that a unit of a layer multiplies; valid until `layer` is called."""
        ...

    def end(self) -> None:
        """The pass has ended, well or not: its arrays are not used any more."""
        ...

    @property
    def linear_s(self) -> float:
        """Seconds that linear layers have taken here since the pass began."""
        ...
