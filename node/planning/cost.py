"""The cost model: seconds and bytes of a request, from exchanges, bytes and multiply-accumulates. No I/O.

While decoding, every covered unit is one exchange on the critical path (share out, result back); a guard of group A
works 8 rows ahead and only matters if it cannot keep up. In a prompt, rows go to all lanes in proportion to their
speed, and the slowest lane counts; of a long one, this device and its peers work on different waves at the same time.
The client's own work is added to both. Attention is measured with a short text,
and the load of other programs on the machine is unknown: `scripts/bench forecast` prints the resulting error.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from node.measures.peers import PeerFigures
from node.model.unit import UnitRef
from node.planning.cut import DECODE_BATCH_ROWS, cut_rows, cut_waves, split_wave
from node.planning.figures import DeviceFigures, LaneFigures
from node.planning.placement import LAYERS_LENT, Placement
from protocol.limits import MAX_CHUNK_ROWS, max_rows_per_chunk, row_bucket

ELEMENT_BYTES = 4


class Cost(Struct, frozen=True):
    """The predicted cost of a request."""

    ttft_s: float
    """Seconds to the first token."""
    token_s: float
    """Seconds from one token to the next."""
    exchanges: int = 0
    """Exchanges on the critical path of a token."""
    bytes_up: int = 0
    bytes_down: int = 0
    """Bytes per token."""
    is_measured: bool = True
    """Whether every peer's figures were measured; else they are what it states and what is assumed."""

    def total_s(self, num_tokens: int) -> float:
        """Seconds of a whole answer."""
        return self.ttft_s + self.token_s * max(num_tokens - 1, 0)

    def scaled(self, ttft: float, token: float) -> Cost:
        """The same with both times multiplied."""
        return replace(self, ttft_s=self.ttft_s * ttft, token_s=self.token_s * token)


def local_cost(units: Sequence[UnitRef], device: DeviceFigures, prompt_tokens: int) -> Cost:
    """The cost if everything is computed here."""
    blocks, ends_s = _blocks(prompt_tokens), device.ends_s + device.head_s
    ttft_s = sum(_linear_here_s(units, device, rows) + _floats_s(units, device, rows) for rows in blocks)
    token_s = _linear_here_s(units, device, 1) + _floats_s(units, device, 1)
    return Cost(ttft_s + ends_s, token_s + ends_s)


def remote_cost(
    units: Sequence[UnitRef],
    device: DeviceFigures,
    lanes: Sequence[LaneFigures],
    prompt_tokens: int,
    pads_made: int = 0,
    placement: Placement = LAYERS_LENT,
) -> Cost:
    """The cost if lent units go through lanes, and the others, and those that no lane covers, are computed here.

    Args:
        units: the units of the decoder's layers, and the head if it is lent.
        pads_made: number of own pads that are ready before the request begins, if no peer makes them.
    """
    heads, layers = _parted(units)
    lent = [ref for ref in units if placement.is_lent(ref)]
    covered = {ref: [lane for lane in lanes if lane.units is None or ref.sha256 in lane.units] for ref in lent}
    away = [ref for ref in lent if covered[ref]]
    here = [ref for ref in layers if not covered.get(ref)]
    ends_s = device.ends_s + (0.0 if any(covered.get(ref) for ref in heads) else device.head_s)
    of_head = [_through(ref, device, covered[ref], 1, pads_made < 1) for ref in away if ref in heads]
    ttft_s = ends_s + _pass_s(0.0, of_head, 1)
    for rows in _blocks(prompt_tokens):
        here_s = _linear_here_s(here, device, rows) + _floats_s(layers, device, rows)
        needs_pads = pads_made < prompt_tokens
        lent_units = [_through(ref, device, covered[ref], rows, needs_pads) for ref in away if ref not in heads]
        ttft_s += _pass_s(here_s, lent_units, len(cut_waves(rows, device.most_waves)))
    path_s = sum(_row_s(ref, device, covered[ref], pads_made > prompt_tokens) for ref in away)
    busy_s = max((_guard_busy_s(away, lane) for lane in lanes), default=0.0)
    token_s = max(path_s + _linear_here_s(here, device, 1) + _floats_s(layers, device, 1), busy_s) + ends_s
    up = sum(ELEMENT_BYTES * ref.num_inputs for ref in away)
    halves = 2 if any(lane.guard is not None for lane in lanes) else 1
    down = sum(halves * ELEMENT_BYTES * ref.num_outputs for ref in away)
    used = {lane for those in covered.values() for lane in those}
    rows = max((wave.num_sent for wave in cut_waves(_blocks(prompt_tokens)[0], device.most_waves)), default=1)
    largest = max((ELEMENT_BYTES * rows * (ref.num_inputs + ref.num_outputs) for ref in away), default=0)
    return Cost(ttft_s, token_s, len(away), up, down, all(lane.is_known(largest) for lane in used))


def _parted(units: Sequence[UnitRef]) -> tuple[list[UnitRef], list[UnitRef]]:
    """The head if it is among the units (only the last row of a prompt reaches it), and the layers' units."""
    return [ref for ref in units if ref.layer is None], [ref for ref in units if ref.layer is not None]


def _blocks(num_rows: int) -> list[int]:
    """The passes of a prompt: blocks of 512 rows and the remaining rows."""
    whole, rest = divmod(max(num_rows, 1), MAX_CHUNK_ROWS)
    return [MAX_CHUNK_ROWS] * whole + ([rest] if rest else [])


def _macs(ref: UnitRef) -> int:
    return ref.num_inputs * ref.num_outputs


def _linear_here_s(units: Sequence[UnitRef], device: DeviceFigures, num_rows: int) -> float:
    return sum(_macs(ref) for ref in units) * device.linear_s.at(num_rows)


def _floats_s(units: Sequence[UnitRef], device: DeviceFigures, num_rows: int) -> float:
    return len({ref.layer for ref in units}) * device.layer_float_s.at(num_rows)


def _own_work_s(ref: UnitRef, device: DeviceFigures, num_rows: int) -> float:
    return device.exchange_s.at(num_rows * (ref.num_inputs + ref.num_outputs))


def _share_s(ref: UnitRef, peer: PeerFigures, num_rows: int) -> float:
    num_bytes = ELEMENT_BYTES * num_rows * (ref.num_inputs + ref.num_outputs)
    return peer.exchange_s(num_rows, num_rows * _macs(ref), num_bytes)


def _row_s(ref: UnitRef, device: DeviceFigures, lanes: Sequence[LaneFigures], has_pads: bool) -> float:
    """One row through one unit: the fastest lane, and this device's own part of it."""
    lane = min(lanes, key=lambda lane: _share_s(ref, lane.share, 1))
    own_s = _own_work_s(ref, device, 1)
    if lane.guard is not None:
        own_s += _own_work_s(ref, device, DECODE_BATCH_ROWS) / DECODE_BATCH_ROWS
    elif not has_pads:
        own_s += _macs(ref) / device.field_macs_per_s
    return _share_s(ref, lane.share, 1) + own_s


class _Through(Struct, frozen=True):
    """Seconds that many rows take through one lent unit."""

    own_s: float
    """This device's part without pads."""
    pads_s: float
    """Products of pads that it makes itself."""
    way_s: float
    """Of the slowest lane: its round trip,"""
    busy_s: float
    """and its computing and transfer."""


def _through(
    ref: UnitRef, device: DeviceFigures, lanes: Sequence[LaneFigures], num_rows: int, pads: bool
) -> _Through:
    """Many rows through one unit, in all waves together: the slowest of the lanes among which they are divided."""
    speeds = [1.0 / max(_share_s(ref, lane.share, row_bucket(min(num_rows, 512))), 1e-9) for lane in lanes]
    limit = max_rows_per_chunk(ref.num_inputs, ref.num_outputs)
    own_s = pads_s = 0.0
    sent: dict[int, int] = {}
    for span in (span for wave in cut_waves(num_rows, device.most_waves) for span in split_wave(wave, speeds)):
        lane = lanes[span.lane]
        for cut in cut_rows(span, limit):
            sent[span.lane] = sent.get(span.lane, 0) + cut.num_sent
            own_s += _own_work_s(ref, device, cut.num_sent) * (2 if lane.guard is not None else 1)
        if lane.guard is None and pads:
            pads_s += span.num_sent * _macs(ref) / device.field_macs_per_s
    slowest_s, way_s = max((_lane_s(ref, lanes[index], rows) for index, rows in sent.items()), default=(0.0, 0.0))
    return _Through(own_s, pads_s, way_s, slowest_s - way_s)


def _lane_s(ref: UnitRef, lane: LaneFigures, num_rows: int) -> tuple[float, float]:
    """Seconds of rows through a unit in a lane, and how much of it is the round trip."""
    share_s = _share_s(ref, lane.share, num_rows), lane.share.rtt_s
    if lane.guard is None:
        return share_s
    num_bytes = ELEMENT_BYTES * num_rows * ref.num_outputs
    return max(share_s, (lane.guard.exchange_s(num_rows, num_rows * _macs(ref), num_bytes), lane.guard.rtt_s))


def _pass_s(here_s: float, units: Sequence[_Through], num_waves: int) -> float:
    """Seconds of a pass of many rows, of which `here_s` are computed here. In one wave, pads are made while the peers
    compute, and everything else waits. Several are at the same unit at the same time, or nearly: of each unit, no
    resource is used less than it needs, and no wave is quicker than its own step."""
    if num_waves == 1 or not units:
        return here_s + sum(each.own_s + max(each.pads_s, each.way_s + each.busy_s) for each in units)
    pass_s = 0.0
    for each in units:
        own_s = each.own_s + each.pads_s + here_s / len(units)
        pass_s += max(own_s, each.busy_s, (own_s + each.busy_s) / num_waves + each.way_s)
    return pass_s


def _guard_busy_s(units: Sequence[UnitRef], lane: LaneFigures) -> float:
    """Seconds of work per token for a lane's guard of group A."""
    guard = lane.guard
    if guard is None:
        return 0.0
    covered = [ref for ref in units if lane.units is None or ref.sha256 in lane.units]
    compute_s = sum(_macs(ref) for ref in covered) / max(guard.rows_macs_per_s, 1.0)
    return compute_s + sum(ELEMENT_BYTES * ref.num_outputs for ref in covered) / guard.bytes_per_s
