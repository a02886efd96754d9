"""Conversations of interfaces, in this process's memory alone: a page that is loaded again finds them here.

They hold prompts and answers: nothing here is written to a disk or a log.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

MAX_CONVERSATIONS = 64
MAX_CONVERSATION_CHARACTERS = 1 << 20
MAX_CHARACTERS = 8 << 20
"""Of all of them."""


class Conversations:
    """Opaque texts by id, the most recently changed last. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: OrderedDict[str, str] = OrderedDict()

    def put(self, name: str, text: str) -> None:
        """Keep a conversation of at most MAX_CONVERSATION_CHARACTERS; the ones changed longest ago make room."""
        with self._lock:
            self._texts[name] = text
            self._texts.move_to_end(name)
            while len(self._texts) > MAX_CONVERSATIONS or sum(map(len, self._texts.values())) > MAX_CHARACTERS:
                self._texts.popitem(last=False)

    def drop(self, name: str) -> bool:
        """Forget a conversation; returns whether it was known."""
        with self._lock:
            return self._texts.pop(name, None) is not None

    def all(self) -> dict[str, str]:
        """Every conversation by id, in the order of their last change."""
        with self._lock:
            return dict(self._texts)
