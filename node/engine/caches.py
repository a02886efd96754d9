"""Caches of answers that ended: the next turn of a chat begins where the last one ended.

What a cache holds is not sent to peers again, so they see that a request is short. Where rows are lent to others, a
cache serves the next turn of its own conversation and nothing else: no request tells peers that it begins like one of
another program, user or chat.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from node.model.cache import KVCache

KEPT_CACHES = 4
MAX_KEPT_BYTES = 256 << 20
"""Of one session; what is larger than that is not kept."""


class _Kept(Struct, frozen=True):
    cache: KVCache
    conversation: str | None
    """Whose it is; None: nobody's."""
    prompt_tokens: int
    """Its beginning that was asked; the rest was answered."""

    def serves(self, prompt_ids: Sequence[int]) -> int:
        """Tokens that any prompt may take over: 0 where that is less than half of the cache."""
        shared = _shared_prefix(self.cache.token_ids, prompt_ids)
        return shared if 2 * shared >= self.cache.length else 0

    def serves_turn(self, prompt_ids: Sequence[int], conversation: str | None) -> int:
        """Tokens that the next turn of its own conversation may take over: no fewer than its whole prompt."""
        if conversation is None or conversation != self.conversation:
            return 0
        shared = _shared_prefix(self.cache.token_ids, prompt_ids)
        return shared if shared >= self.prompt_tokens else 0


class KeptCaches:
    """The latest few of one session; another mode never sees them."""

    def __init__(self) -> None:
        self._kept: deque[_Kept] = deque()
        self._lock = threading.Lock()

    def put(self, cache: KVCache, conversation: str | None = None, prompt_tokens: int = 0) -> None:
        """Keep one; the oldest go."""
        with self._lock:
            self._kept.append(_Kept(cache, conversation, prompt_tokens))
            while len(self._kept) > KEPT_CACHES or sum(kept.cache.num_bytes for kept in self._kept) > MAX_KEPT_BYTES:
                self._kept.popleft()

    def take(self, prompt_ids: Sequence[int]) -> KVCache | None:
        """The one that shares most with the beginning of a prompt, if at least half of it does."""
        return self._best([kept.serves(prompt_ids) for kept in self._kept])

    def take_turn(self, prompt_ids: Sequence[int], conversation: str | None) -> KVCache | None:
        """The one that this prompt is the next turn of."""
        return self._best([kept.serves_turn(prompt_ids, conversation) for kept in self._kept])

    def _best(self, shared: Sequence[int]) -> KVCache | None:
        """Take out the one of which most is shared. The session's thread alone puts and takes."""
        with self._lock:
            if not any(shared):
                return None
            index = max(range(len(shared)), key=shared.__getitem__)
            kept = self._kept[index]
            del self._kept[index]
            return kept.cache

    def clear(self) -> None:
        """The session they were computed in is over."""
        with self._lock:
            self._kept.clear()

    @property
    def num_tokens(self) -> int:
        """Tokens that they hold."""
        with self._lock:
            return sum(kept.cache.length for kept in self._kept)


def _shared_prefix(held: Sequence[int], wanted: Sequence[int]) -> int:
    limit = min(len(held), len(wanted))
    return next((index for index in range(limit) if held[index] != wanted[index]), limit)
