"""Caches of finished answers: the next turn of a chat begins where the last one ended.

Rows in a cache are not sent to peers again, so peers see that a request is short. If rows are sent to peers, a cache
serves only the next turn of its own conversation: so no request reveals to peers that it begins like a request of
another program, user or chat.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from node.engine.running import Running
from node.model.cache import KVCache
from node.privacy import Privacy

KEPT_CACHES = 4
MAX_KEPT_BYTES = 256 << 20
"""Most bytes of kept caches of one session."""


class _Kept(Struct, frozen=True):
    cache: KVCache
    conversation: str | None
    """The conversation that it belongs to; None: it belongs to none."""
    prompt_tokens: int
    """Number of prompt tokens at its beginning; the rest are the answer's."""

    def serves(self, prompt_ids: Sequence[int]) -> int:
        """How many tokens this prompt may reuse; 0 if that is less than half of the cache."""
        shared = _shared_prefix(self.cache.token_ids, prompt_ids)
        return shared if 2 * shared >= self.cache.length else 0

    def serves_turn(self, prompt_ids: Sequence[int], conversation: str | None) -> int:
        """How many tokens the next turn of its own conversation may reuse: at least its whole prompt, else 0."""
        if conversation is None or conversation != self.conversation:
            return 0
        shared = _shared_prefix(self.cache.token_ids, prompt_ids)
        return shared if shared >= self.prompt_tokens else 0


class KeptCaches:
    """The latest caches of one session; other modes never use them."""

    def __init__(self) -> None:
        self._kept: deque[_Kept] = deque()
        self._lock = threading.Lock()

    def put(self, cache: KVCache, conversation: str | None = None, prompt_tokens: int = 0) -> None:
        """Keep a cache, and drop the oldest if there are too many."""
        with self._lock:
            self._kept.append(_Kept(cache, conversation, prompt_tokens))
            while len(self._kept) > KEPT_CACHES or sum(kept.cache.num_bytes for kept in self._kept) > MAX_KEPT_BYTES:
                self._kept.popleft()

    def take(self, prompt_ids: Sequence[int]) -> KVCache | None:
        """Take the cache that shares most with the beginning of a prompt, if at least half of the cache is shared."""
        return self._best([kept.serves(prompt_ids) for kept in self._kept])

    def take_turn(self, prompt_ids: Sequence[int], conversation: str | None) -> KVCache | None:
        """Take the cache whose next turn this prompt is."""
        return self._best([kept.serves_turn(prompt_ids, conversation) for kept in self._kept])

    def _best(self, shared: Sequence[int]) -> KVCache | None:
        """Remove and return the cache of which most is shared. Only the session's thread puts and takes."""
        with self._lock:
            if not any(shared):
                return None
            index = max(range(len(shared)), key=shared.__getitem__)
            kept = self._kept[index]
            del self._kept[index]
            return kept.cache

    def clear(self) -> None:
        """Drop all caches, because their session has ended."""
        with self._lock:
            self._kept.clear()

    @property
    def num_tokens(self) -> int:
        """Number of tokens in all caches."""
        with self._lock:
            return sum(kept.cache.length for kept in self._kept)


def cache_of_earlier(running: Running, caches: KeptCaches, mode: Privacy, sends_all_rows: bool) -> KVCache | None:
    """The cache of an earlier answer with which a prompt begins, if its use reveals nothing new to peers.

    Args:
        sends_all_rows: never reuse the beginning of an earlier prompt if rows are shown to others.
    """
    if running.pool is not None:
        return None  # every row's hidden state is wanted
    if mode in (Privacy.LOCAL, Privacy.TRUSTED):
        return caches.take(running.answer.prompt_ids)
    return None if sends_all_rows else caches.take_turn(running.answer.prompt_ids, running.request.conversation)


def _shared_prefix(held: Sequence[int], wanted: Sequence[int]) -> int:
    limit = min(len(held), len(wanted))
    return next((index for index in range(limit) if held[index] != wanted[index]), limit)
