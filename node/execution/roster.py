"""The lanes of a session, and how each pass is cut among them: which row stays in which lane, layer by layer."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from node.execution.chunk import Chunk, ChunkRecord
from node.execution.lane import Lane
from node.execution.peer import SessionPeer
from node.model.unit import Unit, UnitRef
from node.planning.cut import DECODE_BATCH_ROWS, RowSpan, Wave, cut_rows, cut_waves, split_wave
from protocol.errors import LocalProtocolError
from protocol.limits import MAX_CHUNK_ROWS, TILE_OUTPUTS, max_rows_per_chunk, row_bucket
from protocol.linear.messages import Role


class Roster:
    """Used only by the session's thread. Units that the same lanes cover are cut in the same way."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []
        self._waves: Sequence[Wave] = ()
        self._spans: dict[UnitRef, list[list[RowSpan]]] = {}
        """Of the pass, by unit: the spans of each wave."""
        self._covering: dict[UnitRef, tuple[bool, ...]] = {}
        self.losses = 0
        """How often a connection broke."""

    def add(self, lane: Lane) -> None:
        """Add a lane. Raises LocalProtocolError if it would send rows in another form than the others."""
        if any(other.plain != lane.plain for other in self.lanes):
            raise LocalProtocolError("a session sends plain rows to all its lanes or to none")
        if lane.plain != (lane.share_peer.role is Role.PLAIN):
            raise LocalProtocolError("plain rows go only to peers in that role")
        self.lanes.append(lane)
        self._covering.clear()

    @property
    def plain(self) -> bool:
        """Whether plain rows are sent, to devices that may read them."""
        return bool(self.lanes) and self.lanes[0].plain

    def lacks(self, peer: SessionPeer, ref: UnitRef) -> None:
        """A peer turned out not to hold a unit."""
        for lane in self.lanes:
            if peer is lane.share_peer or (peer is lane.guard and not lane.pads.can_without(ref)):
                lane.missing.add(ref.sha256)
        self._covering.clear()

    def lost(self, peer: SessionPeer) -> None:
        """The connection to a peer broke."""
        self.losses += 1
        peer.lost_as = self.losses
        for lane in self.lanes:
            if peer is lane.share_peer or peer is lane.guard:
                lane.pads.forget()

    def cut(self, num_rows: int, units: Sequence[Unit], most_waves: int = 1) -> Sequence[Wave]:
        """Decide for every row of a pass in which wave it goes, and in which lane it stays; returns the waves."""
        self._waves = cut_waves(num_rows, most_waves if units and self.lanes else 1)
        if not units:
            return self._waves
        speeds = [_rows_per_s(lane, num_rows, units) for lane in self.lanes]
        cuts: dict[tuple[bool, ...], list[list[RowSpan]]] = {}
        for unit in units:
            covering = self._lanes_covering(unit.ref)
            if covering not in cuts:
                open_to = [speed if covers else 0.0 for speed, covers in zip(speeds, covering, strict=True)]
                usual = self._without_stand_ins(open_to)
                cuts[covering] = [split_wave(wave, usual) for wave in self._waves]
            self._spans[unit.ref] = cuts[covering]
        return self._waves

    def spans_of(self, ref: UnitRef) -> list[RowSpan]:
        """How this pass is cut for a unit; empty if no lane covers it."""
        return [span for spans in self._spans.get(ref, ()) for span in spans]

    def prepare_pads(self, num_rows: int, units: Sequence[Unit]) -> None:
        """In a pass of few rows, see that each lane has pads for the units that have rows in it."""
        for lane in self.lanes if num_rows <= DECODE_BATCH_ROWS else ():
            own = [unit for unit in units if any(span.lane == lane.index for span in self.spans_of(unit.ref))]
            if own:
                lane.pads.prepare(own, row_bucket(num_rows))

    def plan(self, ref: UnitRef, wave: int = 0) -> list[ChunkRecord]:
        """Records of all chunks of one linear layer in a wave of this pass; they have no lane if none is usable."""
        tiles, cuts, whole = -(-ref.num_outputs // TILE_OUTPUTS), self._spans.get(ref), self._waves[wave]
        spans = cuts[wave] if cuts else ()
        if not spans:
            return [ChunkRecord(Chunk(ref, whole.start, whole.end, 0, tiles, whole.num_rows), lane=None)]
        limit = max_rows_per_chunk(ref.num_inputs, ref.num_outputs)
        return [
            ChunkRecord(Chunk(ref, cut.start, cut.end, 0, tiles, cut.num_sent), self._stand_in(cut.lane, ref))
            for span in spans
            for cut in cut_rows(span, limit)
        ]

    def for_retry(self, own: Lane, record: ChunkRecord, same_peer_again: bool) -> list[Lane]:
        """The lanes that may get this same share: its own again and, if the pads are the user's own, any other. None
        whose connection broke since it was made, however soon it was made again: the pads may be another copy's."""
        ref, lanes = record.chunk.unit, [own] if same_peer_again and own.usable else []
        if not own.binds_rows:
            lanes += [lane for lane in self.lanes if lane.takes_rows and lane.covers(ref) and lane is not own]
        return [lane for lane in lanes if lane.share_peer.lost_as <= record.losses]

    def elsewhere(self, own: Lane | None, ref: UnitRef, tried: Collection[int]) -> Lane | None:
        """A lane for rows that another could not compute: preferably one that shares a peer with it, so that as few
        peers as possible ever see parts of a row."""
        known = () if own is None else (own.share_peer, own.guard)
        return min(
            (lane for lane in self.lanes if lane.takes_rows and lane.covers(ref) and lane.index not in tried),
            key=lambda lane: (lane.share_peer not in known and lane.guard not in known, lane.stands_in, lane.index),
            default=None,
        )

    def _without_stand_ins(self, speeds: Sequence[float]) -> list[float]:
        """The speeds without stand-ins, which get rows only if no other lane does."""
        own = [0.0 if lane.stands_in else speed for lane, speed in zip(self.lanes, speeds, strict=True)]
        return own if any(own) else list(speeds)

    def _lanes_covering(self, ref: UnitRef) -> tuple[bool, ...]:
        covering = self._covering.get(ref)
        if covering is None:
            covering = self._covering[ref] = tuple(lane.covers(ref) for lane in self.lanes)
        return covering

    def _stand_in(self, lane: int, ref: UnitRef) -> int:
        """The lane itself; if it broke in this pass and the pads are our own, any lane that still works."""
        if self.lanes[lane].binds_rows or self.lanes[lane].usable:
            return lane
        return next((other.index for other in self.lanes if other.takes_rows and other.covers(ref)), lane)


def _rows_per_s(lane: Lane, num_rows: int, units: Sequence[Unit]) -> float:
    """The lane's speed, as far as it is known; 0 for a lane that takes no new rows."""
    if not lane.takes_rows:
        return 0.0
    num_sent = row_bucket(min(num_rows, MAX_CHUNK_ROWS))  # the cut must not depend on more than that
    macs = max(unit.ref.num_inputs * unit.ref.num_outputs for unit in units) * num_sent
    expected_s = lane.share_peer.expected_s(num_sent, macs)
    return 1.0 / max(expected_s, 1e-6)
