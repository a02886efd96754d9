"""Decides which layers of a model a node takes: those that the swarm lacks most. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

from msgspec import Struct

from node.serving.hosting import ranges_of
from protocol.identity import PeerId
from protocol.membership.records import MAX_LAYER_RANGES

ENOUGH_OPERATORS = 2
"""The two guards of a lane come from two operators."""


class LayerView(Struct, frozen=True):
    """One layer as the swarm holds it now, without this node."""

    index: int
    num_bytes: int
    num_operators: int
    macs_per_s: float
    """Speed of all its holders together."""


def choose_layers(
    layers: Sequence[LayerView], memory_bytes: int, start: int = 0, kept: Collection[int] = ()
) -> list[int]:
    """Layers to take, the most urgent first: coverage, then speed, then neighbours.

    Args:
        kept: layers on the disk from an earlier run: they come before all others and need no fetch.
        start: the layer at which a run of equals begins; it differs between nodes, so that nodes that start at the
            same time do not all take the same layers.
    """
    count = max(1, len(layers))

    def urgency(layer: LayerView) -> tuple[bool, int, float, int]:
        covered = min(layer.num_operators, ENOUGH_OPERATORS)
        speed = layer.macs_per_s if covered == ENOUGH_OPERATORS else 0.0
        return layer.index not in kept, covered, speed, (layer.index - start) % count

    chosen, left = [], memory_bytes
    for layer in sorted(layers, key=urgency):
        if layer.num_bytes <= left:
            chosen.append(layer.index)
            left -= layer.num_bytes
    return sayable(chosen)


def sayable(chosen: list[int]) -> list[int]:
    """As many of these layers as a record can name: if there are too many runs, the longest ones."""
    runs = sorted(ranges_of(set(chosen)), key=lambda run: run[0] - run[1])[:MAX_LAYER_RANGES]
    named = {layer for first, end in runs for layer in range(first, end)}
    return [layer for layer in chosen if layer in named]


def start_of(peer_id: PeerId, num_layers: int) -> int:
    """Where this node's run of equals begins."""
    return int.from_bytes(hashlib.sha256(peer_id.encode()).digest()[:8], "big") % max(1, num_layers)
