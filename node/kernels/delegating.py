"""A backend that forwards every call to another one: the base class of partial backends and of mutants in tests."""

from collections.abc import Sequence

from node.kernels.interface import Activation, Int16s, Int64s, Kernels, NativeFunctions
from node.kernels.layers import LayerParts, LayerShape
from protocol.linear.field import Elements, Floats, Sums, Weights


class DelegatingKernels:
    """Forwards every call to another backend; subclasses replace some methods."""

    def __init__(self, base: Kernels) -> None:
        self.base = base
        self.name = base.name
        self.note = base.note
        self.keeps_weights = base.keeps_weights
        self.threads = base.threads
        self.functions: NativeFunctions | None = None
        """None: what a subclass replaces must not be passed by."""

    def linear_a12(self, weights: Weights, rows: Int16s) -> Sums:
        return self.base.linear_a12(weights, rows)

    def linear_field(self, weights: Weights, rows: Elements) -> Elements:
        return self.base.linear_field(weights, rows)

    def share(self, rows: Int16s, pads: Elements) -> Elements:
        return self.base.share(rows, pads)

    def merge(self, first: Elements, second: Elements) -> Sums:
        return self.base.merge(first, second)

    def centre(self, elements: Elements) -> Sums:
        return self.base.centre(elements)

    def dots_agree(self, vectors: Elements, outputs: Elements, projections: Elements, inputs: Elements) -> bool:
        return self.base.dots_agree(vectors, outputs, projections, inputs)

    def field_combine(self, coefficients: Elements, rows: Elements) -> Elements:
        return self.base.field_combine(coefficients, rows)

    def field_project(self, vectors: Elements, weights: Weights) -> Elements:
        return self.base.field_project(vectors, weights)

    def all_canonical(self, elements: Elements) -> bool:
        return self.base.all_canonical(elements)

    def quantize(self, hidden: Floats, max_row_norm: float) -> tuple[Int16s, Floats]:
        return self.base.quantize(hidden, max_row_norm)

    def norm_quantize(
        self, hidden: Floats, gain: Floats, epsilon: float, max_row_norm: float
    ) -> tuple[Int16s, Floats]:
        return self.base.norm_quantize(hidden, gain, epsilon, max_row_norm)

    def gated_quantize(
        self, gate_up: Floats, max_row_norm: float, activation: Activation = "silu"
    ) -> tuple[Int16s, Floats]:
        return self.base.gated_quantize(gate_up, max_row_norm, activation)

    def gated(self, gate_up: Floats, activation: Activation = "silu") -> Floats:
        return self.base.gated(gate_up, activation)

    def fused_layers(self, layers: Sequence[LayerParts], shape: LayerShape) -> None:
        """None: a subclass replaces single steps."""
        return None

    def softcap(self, values: Floats, limit: float) -> Floats:
        return self.base.softcap(values, limit)

    def dequantize(self, sums: Sums, row_scales: Floats, weight_scales: Floats, bias: Floats | None) -> Floats:
        return self.base.dequantize(sums, row_scales, weight_scales, bias)

    def rms_norm(self, hidden: Floats, gain: Floats, epsilon: float) -> Floats:
        return self.base.rms_norm(hidden, gain, epsilon)

    def rope(self, heads: Floats, cos: Floats, sin: Floats) -> None:
        self.base.rope(heads, cos, sin)

    def attention(
        self,
        queries: Floats,
        keys: Floats,
        values: Floats,
        positions: Int64s,
        window: int | None,
        scale: float,
        softcap: float | None = None,
    ) -> Floats:
        return self.base.attention(queries, keys, values, positions, window, scale, softcap)
