"""What is known about each peer, measured all the time and kept over all sessions of a node.

Until a peer's first result, what an earlier process measured of it is used, or the speed that it states in its hello;
never after. The computing time that a
result states only divides the time measured here into a part that grows with the work and a part that does not:
whatever a peer claims, the two add up to the real waiting time.
"""

from __future__ import annotations

import threading

from msgspec import Struct, field
from msgspec.structs import replace

from node.measures.series import MIN_SAMPLES, Mean, Series
from protocol.discreet import Discreet
from protocol.identity import PeerId

UNMEASURED_RTT_S = 0.001
"""The assumed round trip to a peer before any ping came back."""
UNMEASURED_BYTES_PER_S = 100e6
"""The assumed bandwidth before any large message: a link of 1 Gbit/s."""
FASTEST_BYTES_PER_S = 1e10
"""No way is taken for faster, however little time large messages seemed to take."""
LARGE_MESSAGE_BYTES = 256 * 1024
"""Messages of at least this size measure the bandwidth; smaller ones measure the round trip."""

SAME_PING_S, FEW_PINGS, FIRST_PING_S = 0.001, 3, 0.02
"""Pings that differ by no more may be of the same way, and so may those of which none is twice the other. The first
few pings of a link take longer, as everything else starts too: by so much they say nothing."""
MAX_PEERS = 4096
"""Most peers that are remembered; the first one met is forgotten first."""


class Exchange(Struct, frozen=True):
    """One request and its answer, as measured here."""

    num_rows: int
    macs: int
    num_bytes: int
    """Sum of both directions."""
    latency_s: float
    stated_s: float
    """The computing time that the peer states."""
    ahead_s: float = 0.0
    """Of the latency, the time until the peer had answered what it was asked before."""
    is_exact: bool = True
    """Whether the answers were read when they came, not when this device was done with something else."""


class PeerFigures(Struct, frozen=True):
    """The expected figures of a peer now."""

    rtt_s: float
    """Time of an exchange without computing and transfer, but with waiting in its queue."""
    queued: float
    """Requests that waited at its worker when it was last asked."""
    row_macs_per_s: float
    """Speed with one row, for which all weights are read."""
    rows_macs_per_s: float
    """Speed with 8 rows and more."""
    bytes_per_s: float
    measured: bool
    """Whether any result has come; else the speeds are what the peer states, or what an earlier process measured."""
    row_latency_s: float | None = None
    """Median time of one row through one unit of the model; None if there was none."""
    knows_bandwidth: bool = True
    """Whether a large message has come; else the bandwidth is assumed."""

    def is_known(self, num_bytes: int) -> bool:
        """Whether everything that an exchange of so many bytes is predicted from was measured."""
        return self.measured and (self.knows_bandwidth or num_bytes < LARGE_MESSAGE_BYTES)

    def exchange_s(self, num_rows: int, macs: int, num_bytes: int) -> float:
        """Expected seconds from a request to its answer."""
        if num_rows == 1 and self.row_latency_s is not None:
            return self.row_latency_s
        speed = self.row_macs_per_s if num_rows == 1 else self.rows_macs_per_s
        return self.rtt_s + macs / max(speed, 1.0) + num_bytes / self.bytes_per_s


class KnownFigures(Struct, frozen=True):
    """What a process measured of a peer; None for what it did not."""

    ping_s: float | None = None
    """The quickest ping."""
    way_s: float | None = None
    """Time of an exchange without computing and transfer."""
    row_macs_per_s: float | None = None
    rows_macs_per_s: float | None = None
    """Speed with one row, and with several."""
    bytes_per_s: float | None = None


class PeerMeasures(Discreet, Struct):
    """One peer's figures; written by the control plane and by every session, from any thread."""

    stated_macs_per_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ping_s: Series = field(default_factory=Series)
    _queued: Mean = field(default_factory=Mean)
    _way_s: Series = field(default_factory=Series)
    _row_speed: Mean = field(default_factory=Mean)
    _rows_speed: Mean = field(default_factory=Mean)
    _moved_bytes: Mean = field(default_factory=Mean)
    _moving_s: Mean = field(default_factory=Mean)
    """Of large messages; a mean of rates would follow the few that seemed to take no time."""
    _compute_s: Mean = field(default_factory=Mean)
    _latency_s: dict[tuple[bytes, int], Series] = field(default_factory=dict)
    _earlier: KnownFigures = KnownFigures()

    def ponged(self, rtt_s: float, queued: int | None) -> None:
        """A ping came back; `queued` is None if it did not say how many requests wait."""
        with self._lock:
            self._ping_s.add(rtt_s)
            if queued is not None:
                self._queued.add(float(queued))

    def answered(self, model_id: bytes, exchange: Exchange) -> None:
        """A result came, correct or not; only its time matters here."""
        latency_s = max(exchange.latency_s, 1e-6)
        compute_s = min(max(exchange.stated_s, 1e-6), latency_s)
        with self._lock:
            self._latency_s.setdefault((model_id, exchange.num_rows), Series()).add(latency_s)
            self._compute_s.add(compute_s)
            (self._row_speed if exchange.num_rows == 1 else self._rows_speed).add(exchange.macs / compute_s)
            if not exchange.is_exact:
                return
            if exchange.num_bytes >= LARGE_MESSAGE_BYTES:
                # Of a request that was sent before the last answer came, the way is over by then, or a part of it.
                way_s = self._way_s.median or self._ping_s.least or 0.0
                moving_s = latency_s - compute_s - max(exchange.ahead_s, way_s)
                if moving_s > 0.0 or not exchange.ahead_s:  # else it moved while the one before it was computed
                    self._moving_s.add(max(moving_s, 0.0))
                    self._moved_bytes.add(exchange.num_bytes)
            elif not exchange.ahead_s:
                self._way_s.add(max(latency_s - compute_s, 0.0))

    def computed(self, exchange: Exchange) -> None:
        """A device has computed a run of layers: it says something about its speed, and nothing about chunks."""
        compute_s = min(max(exchange.stated_s, 1e-6), max(exchange.latency_s, 1e-6))
        with self._lock:
            (self._row_speed if exchange.num_rows == 1 else self._rows_speed).add(exchange.macs / compute_s)
            if exchange.num_rows == 1:
                self._way_s.add(max(exchange.latency_s - compute_s, 0.0))

    def begin_with(self, known: KnownFigures) -> None:
        """Predict from what an earlier process measured, each figure until it is measured here."""
        with self._lock:
            self._earlier = known

    @property
    def known(self) -> KnownFigures | None:
        """What this process measured; None if no result has come."""
        with self._lock:
            row, rows = self._row_speed.mean, self._rows_speed.mean
            if row is None and rows is None:
                return None
            bytes_per_s = None if self._moved_bytes.mean is None else self._bytes_per_s
            return KnownFigures(self._ping_s.least, self._way_s.median, row, rows, bytes_per_s)

    @property
    def ping_s(self) -> float | None:
        """The quickest of the last pings, which is nearest to the network's latency. None before any came back."""
        with self._lock:
            return self._ping_s.least

    def figures_for(self, model_id: bytes) -> PeerFigures:
        """Its expected figures now, with the time of a row of this model if that was measured."""
        return replace(self.figures, row_latency_s=self.latency_s(model_id, 1))

    @property
    def figures(self) -> PeerFigures:
        """Its expected figures now."""
        with self._lock:
            queued = self._queued.mean or 0.0
            # A link's first pings are slow, as everything else starts too: the quickest is nearest to the latency.
            ping_s = self._ping_s.least if self._ping_s else UNMEASURED_RTT_S
            # Measured exchanges have waited in the queue; a ping has not.
            way_s = self._way_s.median
            if way_s is None and (way_s := self._of_same_way.way_s) is None:
                way_s = (ping_s or 0.0) + queued * (self._compute_s.mean or 0.0)
            earlier, row, rows = self._earlier, self._row_speed.mean, self._rows_speed.mean
            before = earlier.row_macs_per_s, earlier.rows_macs_per_s
            return PeerFigures(
                rtt_s=way_s or UNMEASURED_RTT_S,
                queued=queued,
                row_macs_per_s=row or rows or before[0] or before[1] or self.stated_macs_per_s,
                rows_macs_per_s=rows or row or before[1] or before[0] or self.stated_macs_per_s,
                bytes_per_s=self._bytes_per_s,
                measured=row is not None or rows is not None,
                knows_bandwidth=self._moved_bytes.mean is not None,
            )

    @property
    def _bytes_per_s(self) -> float:
        moved_bytes = self._moved_bytes.mean
        if moved_bytes is None:
            return self._of_same_way.bytes_per_s or UNMEASURED_BYTES_PER_S
        return moved_bytes / max(self._moving_s.mean or 0.0, moved_bytes / FASTEST_BYTES_PER_S)

    @property
    def _of_same_way(self) -> KnownFigures:
        """What an earlier process measured, unless pings say that the way to the peer is another now."""
        then, now = self._earlier.ping_s, self._ping_s.least
        if then is None or now is None or abs(now - then) <= SAME_PING_S or 0.5 <= now / then <= 2.0:
            return self._earlier
        is_start = len(self._ping_s) < FEW_PINGS and then < now <= then + FIRST_PING_S
        return self._earlier if is_start else KnownFigures()

    def latency_p95_s(self, model_id: bytes, num_rows: int) -> float | None:
        """95th percentile of the latency of a model's chunks of this many rows.

        If there were too few such chunks, the figure of another bucket is used, scaled up to more rows but never down
        to fewer. None if nothing was measured often enough.
        """
        with self._lock:
            same = self._latency_s.get((model_id, num_rows))
            if same is not None and (percentile_s := same.percentile_95) is not None:
                return percentile_s
            measured = {
                rows: seen
                for (model, rows), seen in self._latency_s.items()
                if model == model_id and len(seen) >= MIN_SAMPLES
            }
            if not measured:
                return None
            bucket = min(measured, key=lambda rows: abs(rows - num_rows))
            percentile_s = measured[bucket].percentile_95
        return None if percentile_s is None else percentile_s * max(1.0, num_rows / bucket)

    def latency_s(self, model_id: bytes, num_rows: int) -> float | None:
        """Median latency of a model's chunks of this many rows; None if there was none."""
        with self._lock:
            seen = self._latency_s.get((model_id, num_rows))
            return None if seen is None else seen.median


class Measures:
    """The measures of every peer that this node has met. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._peers: dict[PeerId, PeerMeasures] = {}

    def of(self, peer_id: PeerId) -> PeerMeasures:
        """A peer's measures; empty ones if it was never met."""
        with self._lock:
            known = self._peers.setdefault(peer_id, PeerMeasures())
            if len(self._peers) > MAX_PEERS:
                del self._peers[next(iter(self._peers))]
            return known

    def known(self) -> dict[PeerId, KnownFigures]:
        """What this process measured, of every peer that sent a result."""
        with self._lock:
            peers = list(self._peers.items())
        figures = {peer_id: measures.known for peer_id, measures in peers}
        return {peer_id: known for peer_id, known in figures.items() if known is not None}
