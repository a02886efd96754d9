"""Serving pieces: who gets the next one, decided purely.

Connections are served in turn, each as far as its credit reaches. While this node computes for others, pieces are
held to a rate, so that a chunk never waits for a queue of them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from msgspec import Struct, field

from protocol.limits import MAX_OPEN_PIECES, PIECE_BYTES

Route = TypeVar("Route")


class ServeConfig(Struct, frozen=True):
    """Tunables; none of them is part of the protocol."""

    busy_bytes_per_s: float = 32.0 * PIECE_BYTES
    """Rate of all connections together while chunks are computed."""
    busy_s: float = 0.5
    """The node counts as computing for this time after a chunk came."""
    max_connections: int = 1024
    """Most connections that are remembered; beyond these, the one served longest ago is forgotten."""


class PieceJob(Struct, Generic[Route], frozen=True):
    """A piece that is to be read and sent."""

    route: Route
    message_id: int
    sha256: bytes
    index: int
    num_bytes: int


class _Connection(Struct, Generic[Route]):
    jobs: OrderedDict[int, PieceJob[Route]] = field(default_factory=OrderedDict)
    credit_bytes: int = 0
    sent_bytes: int = 0

    @property
    def sendable(self) -> PieceJob[Route] | None:
        """The piece that comes next, where the credit reaches that far."""
        job = next(iter(self.jobs.values()), None)
        return None if job is None or self.sent_bytes + job.num_bytes > self.credit_bytes else job


class Serving(Generic[Route]):
    """Pieces that were asked for and not yet sent."""

    def __init__(self, config: ServeConfig | None = None) -> None:
        self._config = config or ServeConfig()
        self._connections: OrderedDict[Route, _Connection[Route]] = OrderedDict()
        self._computed_at = float("-inf")
        self._free_at = 0.0
        """When the next piece may go while this node computes."""

    def computed(self, now: float) -> None:
        """A chunk is computed for somebody."""
        self._computed_at = now

    def ask(self, job: PieceJob[Route]) -> bool:
        """Whether there is room for one more piece of this connection."""
        connection = self._connection(job.route)
        if len(connection.jobs) >= MAX_OPEN_PIECES:
            return False
        connection.jobs[job.message_id] = job
        return True

    def credit(self, route: Route, total_bytes: int) -> None:
        """A receiver allows this many bytes in all."""
        connection = self._connection(route)
        connection.credit_bytes = max(connection.credit_bytes, total_bytes)

    def cancel(self, route: Route, message_id: int) -> None:
        """A piece is not wanted any more; nothing happens if it is not there."""
        if route in self._connections:
            self._connections[route].jobs.pop(message_id, None)

    def gone(self, route: Route) -> None:
        """A connection is gone."""
        self._connections.pop(route, None)

    @property
    def waiting(self) -> list[Route]:
        """Connections with pieces that wait."""
        return [route for route, connection in self._connections.items() if connection.jobs]

    def next(self, now: float) -> PieceJob[Route] | None:
        """The piece to be sent now; its connection goes to the end of the line."""
        if self._is_busy(now) and now < self._free_at:
            return None
        route = next((route for route, connection in self._connections.items() if connection.sendable), None)
        if route is None:
            return None
        connection = self._connections[route]
        self._connections.move_to_end(route)
        _id, job = connection.jobs.popitem(last=False)
        connection.sent_bytes += job.num_bytes
        self._free_at = max(now, self._free_at) + job.num_bytes / self._config.busy_bytes_per_s
        return job

    def wait_s(self, now: float) -> float | None:
        """How long until `next` may give something; None while only a message can change that."""
        if not any(connection.sendable for connection in self._connections.values()):
            return None
        return max(0.0, self._free_at - now) if self._is_busy(now) else 0.0

    def _is_busy(self, now: float) -> bool:
        if now - self._computed_at < self._config.busy_s:
            return True
        self._free_at = min(self._free_at, now)  # bytes sent while nobody waited are not charged later
        return False

    def _connection(self, route: Route) -> _Connection[Route]:
        connection = self._connections.get(route)
        if connection is None:
            while len(self._connections) >= self._config.max_connections:
                self._connections.popitem(last=False)
            connection = self._connections[route] = _Connection()
        return connection
