"""Takes a computation of one thread apart: how long it was in which functions, each moment counted once."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

Divide = Callable[[Any], dict[str, float]]


class Stopwatches:
    """Times functions of this thread while it is entered; what a timed function calls counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._stack: list[str] = []
        self._since = 0.0
        self._thread = threading.get_ident()
        self._patches: list[AbstractContextManager[Any]] = []

    def watch(self, what: str, owner: Any, name: str, divide: Divide = lambda result: {}) -> None:
        """Count the time of `owner.name` (a function of a module, or a method of an object or class) as `what`.

        Args:
            divide: which seconds of a call belong to something else, by its result.
        """
        self._patches.append(patch.object(owner, name, self._timed(what, getattr(owner, name), divide)))

    def __enter__(self) -> Stopwatches:
        for each in self._patches:
            each.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        for each in reversed(self._patches):
            each.__exit__(*exc)

    def clear(self) -> None:
        """Begin again at zero."""
        self.seconds.clear()

    def _timed(self, what: str, function: Callable[..., Any], divide: Divide) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            if threading.get_ident() != self._thread:
                return function(*arguments, **named)
            self._turn(what)
            self._stack.append(what)
            try:
                result = function(*arguments, **named)
            finally:
                self._turn("")
                self._stack.pop()
            for part, seconds in divide(result).items():
                self.seconds[part] += seconds
                self.seconds[what] -= seconds
            return result

        return timed

    def _turn(self, what: str) -> None:
        """The time until now belongs to what is on top of the stack."""
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now
