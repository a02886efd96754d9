"""How long to wait for the peers of a session: the allowance of an exchange, and what is left of each peer's credit.

The allowance depends only on what this device knows itself: how long it would take alone, how many bytes are sent,
and the latency by the quickest ping (up to a limit). A peer's own past only decides when it is late before its credit
is used up; it cannot gain time with it.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from node.execution.chunk import ChunkRecord
from node.execution.config import ExecutionConfig
from node.execution.lane import Lane
from node.execution.peer import SessionPeer
from node.measures.series import MIN_SAMPLES, Series
from node.model.unit import UnitRef
from node.planning.cut import DECODE_BATCH_ROWS
from protocol.identity import PeerId

ELEMENT_BYTES = 4


class LocalSpeed:
    """How long linear layers take on this device, as measured."""

    def __init__(self, macs_per_s: float) -> None:
        """
        Args:
            macs_per_s: multiply-accumulates a second of one row, used until layers were computed.
        """
        self._believed_s = 1.0 / macs_per_s
        self._row_s, self._rows_s = Series(), Series()

    def computed(self, ref: UnitRef, num_rows: int, seconds: float) -> None:
        """A layer was computed here."""
        each_s = seconds / (num_rows * ref.num_inputs * ref.num_outputs)
        (self._row_s if num_rows == 1 else self._rows_s).add(each_s)

    def predicted_s(self, ref: UnitRef, num_rows: int) -> float:
        """Predicted seconds of a layer here."""
        seen = self._row_s if num_rows == 1 else self._rows_s
        each_s = seen.median if len(seen) >= MIN_SAMPLES else None
        return num_rows * ref.num_inputs * ref.num_outputs * (self._believed_s if each_s is None else each_s)


class Service(Struct, frozen=True):
    """What peers did for one chunk, without the chunk."""

    unit: UnitRef
    num_rows: int
    """As sent."""
    batch_rows: int
    """Of the request for the products of its pads."""
    at: float
    """When it was merged."""

    @classmethod
    def of(cls, record: ChunkRecord, now: float) -> Service:
        ticket = record.ticket
        return cls(record.chunk.unit, _rows_sent(record), 0 if ticket is None else ticket.batch_rows, now)


class Patience:
    """The waiting times of one session; used only by its thread. Time is an argument."""

    def __init__(self, config: ExecutionConfig, model_id: bytes, local: LocalSpeed) -> None:
        self.local = local
        self._config = config
        self._model_id = model_id
        self._pass_debt_s = 0.0
        """Seconds waited in this pass for all peers, beyond the allowances."""
        self._allowed_s: dict[tuple[PeerId, bytes, int], float] = {}
        """The allowances of this pass, by peer, unit and rows: each is asked for three times."""

    def begin_pass(self) -> None:
        """A forward pass begins: all its chunks together have their own credit."""
        self._pass_debt_s = 0.0
        self._allowed_s.clear()

    @property
    def used_up(self) -> bool:
        """Whether this pass must not wait for anybody any more."""
        return self._pass_debt_s >= self._config.credit_s

    def allowed_s(self, peer: SessionPeer, ref: UnitRef, num_rows: int) -> float:
        """Seconds that an exchange about so many rows of a unit may take in this pass."""
        key = peer.peer_id, ref.sha256, num_rows
        allowed_s = self._allowed_s.get(key)
        if allowed_s is None:
            allowed_s = self._allowed_s[key] = self._allowance_s(peer, ref, num_rows)
        return allowed_s

    def _allowance_s(self, peer: SessionPeer, ref: UnitRef, num_rows: int) -> float:
        config = self._config
        ping_s = peer.measures.ping_s
        way_s = config.way_limit_s if ping_s is None else min(ping_s, config.way_limit_s)
        num_bytes = ELEMENT_BYTES * num_rows * (ref.num_inputs + ref.num_outputs)
        moving_s = config.way_factor * way_s + num_bytes / config.least_bytes_per_s
        return config.exchange_s + moving_s + config.local_factor * self.local.predicted_s(ref, num_rows)

    def ahead_s(self, record: ChunkRecord, lane: Lane) -> float:
        """Seconds that the peers of a lane may take for what they were asked before a chunk of many rows; of two
        peers, the more. Few rows go one after the other, and pads for later ones are not waited for."""
        if record.chunk.num_sent <= DECODE_BATCH_ROWS:
            return 0.0
        return max(
            sum(self.allowed_s(peer, each.unit, each.binding.num_rows) for each in peer.in_flight.values())
            for peer in _peers(lane)
        )

    def left_s(self, record: ChunkRecord, lane: Lane, now: float) -> float:
        """Seconds after which a sent chunk is late; 0 or less if it is late now."""
        config, ref = self._config, record.chunk.unit
        early_s = max(config.hedge_floor_s, self.local.predicted_s(ref, record.chunk.num_rows))
        deadline = record.sent_at + early_s
        for peer, num_rows in _owing(record, lane):
            deadline = max(deadline, self._deadline(peer, ref, num_rows, record, now))
        credit_s = config.credit_s - self._pass_debt_s
        pass_s = credit_s + self.allowed_s(lane.share_peer, ref, _rows_sent(record))
        return min(deadline, now + pass_s, record.sent_at + config.progress_limit_s) - now

    def surely_left_s(self, record: ChunkRecord, now: float) -> float:
        """As `left_s`, but no more than holds whatever its peers have done before: that takes no time to find out."""
        config = self._config
        early_s = min(config.hedge_floor_s, config.progress_limit_s)
        return min(record.sent_at + early_s - now, config.credit_s - self._pass_debt_s)

    def _deadline(self, peer: SessionPeer, ref: UnitRef, num_rows: int, record: ChunkRecord, now: float) -> float:
        config, allowed_s, sent_at = self._config, self.allowed_s(peer, ref, num_rows), record.sent_at
        if peer.account.resting(now):
            return sent_at + allowed_s
        usual_s = peer.measures.latency_p95_s(self._model_id, num_rows)
        patience_s = config.hedge_unmeasured_s if usual_s is None else config.hedge_factor * usual_s
        if usual_s is None or record.ahead_s:
            patience_s = max(patience_s, record.ahead_s + allowed_s)
        return min(sent_at + patience_s, now + allowed_s + peer.account.left_s)

    def waited(self, owing: list[SessionPeer], seconds: float, now: float) -> None:
        """The answer waited for these peers."""
        self._pass_debt_s += seconds
        for peer in owing:
            peer.account.waited(seconds, now)

    def served(self, record: ChunkRecord, lane: Lane, now: float) -> None:
        """A chunk was merged from its peers' results."""
        self.pay(Service.of(record, now), lane)

    def pay(self, service: Service, lane: Lane) -> None:
        """Pay back the allowances for a chunk; that for pads as the pads are used."""
        ref, num_rows, now = service.unit, service.num_rows, service.at
        allowed_s = self.allowed_s(lane.share_peer, ref, num_rows)
        lane.share_peer.account.served(allowed_s, now)
        self._pass_debt_s = max(self._pass_debt_s - allowed_s, 0.0)
        if lane.guard is not None and service.batch_rows and lane.guard.account.owes:
            together = max(service.batch_rows, num_rows)
            lane.guard.account.served(self.allowed_s(lane.guard, ref, together) * num_rows / together, now)

    def gave_up(self, record: ChunkRecord, lane: Lane, now: float, late: bool) -> None:
        """A sent chunk is computed here, because its peers are late or cannot compute it."""
        for peer in self.owing(record, lane) if late else ():
            peer.was_late()
        for peer in _peers(lane):
            peer.account.look(now)

    @staticmethod
    def owing(record: ChunkRecord, lane: Lane) -> list[SessionPeer]:
        """Peers without whom a chunk cannot be merged yet."""
        return [peer for peer, _rows in _owing(record, lane)]


def _peers(lane: Lane) -> list[SessionPeer]:
    return [lane.share_peer] if lane.guard is None else [lane.share_peer, lane.guard]


def _rows_sent(record: ChunkRecord) -> int:
    """Number of rows of a chunk as sent, filled to its bucket."""
    return record.chunk.num_rows if record.share is None else len(record.share)


def _owing(record: ChunkRecord, lane: Lane) -> Iterator[tuple[SessionPeer, int]]:
    """The peers whose answer is missing, and the number of rows of that answer."""
    if record.result is None and record.share is not None:
        yield lane.share_peer, len(record.share)
    if lane.guard is not None and record.ticket is not None and record.products is None:
        yield lane.guard, record.ticket.batch_rows
