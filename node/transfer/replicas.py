"""Which published models a node holds a part of, and how much memory each gets: decided purely."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct

from protocol.identity import PeerId

Key = TypeVar("Key", bound=Hashable)


class Replica(Struct, frozen=True):
    """A model that a member published, as this node sees it."""

    model_id: bytes
    name: str
    """What its publisher calls it."""
    publisher: PeerId
    asked_unix_s: float
    """When somebody last had this node compute with it; at first, when it was heard of."""
    size_bytes: int | None = None
    """Of all of its layers; None where the manifest is not here yet."""
    layer_bytes: int = 0
    """Of its smallest layer."""


def allot(offered: Sequence[Replica], memory_bytes: int, limit: int) -> dict[bytes, int]:
    """The models to hold a part of, by id, and the bytes for each.

    Every publisher gets an equal part of the memory, and every model an equal part of its publisher's; what one does
    not need goes to the others. So who publishes many models gets no more than who publishes one. Where a part holds
    not a single layer, or where there are more models than a record can name, the one that was asked for longest ago
    goes first.

    Args:
        limit: most models.
    """
    held = [model for model in offered if model.layer_bytes <= memory_bytes]
    while held:
        if len(held) > limit:
            counts = Counter(model.publisher for model in held)
            pressed = {publisher for publisher, count in counts.items() if count == max(counts.values())}
        else:
            shares = _shares(held, memory_bytes)
            pressed = {model.publisher for model in held if shares[model.model_id] < max(1, model.layer_bytes)}
            if not pressed:
                return shares
        candidates = [model for model in held if model.publisher in pressed]
        held.remove(min(candidates, key=lambda model: (model.asked_unix_s, model.model_id)))
    return {}


def _shares(held: Sequence[Replica], memory_bytes: int) -> dict[bytes, int]:
    by_publisher: dict[PeerId, list[Replica]] = {}
    for model in held:
        by_publisher.setdefault(model.publisher, []).append(model)
    needs = {publisher: _sum_of(models) for publisher, models in by_publisher.items()}
    shares = dict[bytes, int]()
    for publisher, part in fair_parts(memory_bytes, needs).items():
        shares |= fair_parts(part, {model.model_id: model.size_bytes for model in by_publisher[publisher]})
    return shares


def _sum_of(models: Sequence[Replica]) -> int | None:
    sizes = [model.size_bytes for model in models if model.size_bytes is not None]
    return sum(sizes) if len(sizes) == len(models) else None


def fair_parts(total: int, needs: Mapping[Key, int | None]) -> dict[Key, int]:
    """Divides `total` so that nobody gets more than it needs, and all others the same.

    Args:
        needs: None: without bound.
    """
    parts, left = dict[Key, int](), total
    in_order = sorted(needs.items(), key=lambda item: (item[1] is None, item[1] or 0))
    for index, (key, need) in enumerate(in_order):
        equal = left // (len(in_order) - index)
        parts[key] = equal if need is None else min(need, equal)
        left -= parts[key]
    return parts
