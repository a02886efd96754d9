"""Several answers to one prompt: its rows are computed for the first, and copied for the others."""

from __future__ import annotations

from collections.abc import Sequence

from node.engine.running import Running
from node.model.cache import KVCache


def must_wait(waiting: Running, running: Sequence[Running]) -> bool:
    """Whether a sibling of a waiting request computes their prompt just now."""
    return any(other.answer.num_tokens == 0 for other in _siblings(waiting, running))


def cache_of_sibling(begun: Running, running: Sequence[Running]) -> KVCache | None:
    """A copy of the prompt's keys and values, from a sibling that has them."""
    for other in _siblings(begun, running):
        if other.cache is not None:
            return other.cache.beginning(len(begun.request.prompt_ids) - 1)
    return None


def _siblings(one: Running, running: Sequence[Running]) -> list[Running]:
    name = one.request.siblings
    return [other for other in running if name is not None and other is not one and other.request.siblings == name]
