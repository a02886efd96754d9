"""`merge_results`: two verified results become the exact integers of the layer."""

from __future__ import annotations

from node.kernels.interface import Kernels
from protocol.linear.field import Elements, Sums


def merge_results(share_result: Elements, pad_products: Elements, kernels: Kernels) -> Sums:
    """`W (x - r) + W r = W x`: two `[T, N]` u32 -> `[T, N]` int32, centred in (-p/2, p/2).

    Exact because the scale of every row guarantees `|W x| < p / 2` (Cauchy-Schwarz).
    """
    return kernels.merge(share_result, pad_products)
