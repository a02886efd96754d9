"""Lifeguard's local health: a node that misses answers, or whose tick comes late, doubts itself before it doubts
others."""

from __future__ import annotations

from msgspec import Struct


class LocalHealth(Struct):
    """0 is well; timeouts are multiplied by 1 + score."""

    most: int
    score: int = 0

    @property
    def factor(self) -> int:
        return 1 + self.score

    def worse(self, by: int = 1) -> None:
        """A probe failed and helpers were silent, a pause was measured, or others suspected this node."""
        self.score = min(self.most, self.score + by)

    def better(self) -> None:
        """A probe was answered."""
        self.score = max(0, self.score - 1)
