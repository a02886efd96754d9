"""Caches of answers that ended: the next turn of a chat begins where the last one ended."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from node.model.cache import KVCache

KEPT_CACHES = 4
MAX_KEPT_BYTES = 256 << 20
"""Of one session; what is larger than that is not kept."""


class KeptCaches:
    """The latest few of one session; another mode never sees them."""

    def __init__(self) -> None:
        self._caches: deque[KVCache] = deque()
        self._lock = threading.Lock()

    def put(self, cache: KVCache) -> None:
        """Keep one; the oldest go."""
        with self._lock:
            self._caches.append(cache)
            while len(self._caches) > KEPT_CACHES or sum(kept.num_bytes for kept in self._caches) > MAX_KEPT_BYTES:
                self._caches.popleft()

    def take(self, prompt_ids: Sequence[int]) -> KVCache | None:
        """The one that shares most with the beginning of a prompt, if at least half of it does."""
        with self._lock:
            shared = [_shared_prefix(cache.token_ids, prompt_ids) for cache in self._caches]
            fitting = [i for i, cache in enumerate(self._caches) if shared[i] and 2 * shared[i] >= cache.length]
            if not fitting:
                return None
            best = self._caches[max(fitting, key=lambda index: shared[index])]
            self._caches.remove(best)
            return best

    def clear(self) -> None:
        """The session they were computed in is over."""
        with self._lock:
            self._caches.clear()

    @property
    def num_tokens(self) -> int:
        """Tokens that they hold."""
        with self._lock:
            return sum(cache.length for cache in self._caches)


def _shared_prefix(held: Sequence[int], wanted: Sequence[int]) -> int:
    limit = min(len(held), len(wanted))
    return next((index for index in range(limit) if held[index] != wanted[index]), limit)
