"""Cuts a model's layers over devices of the same owner, and predicts what a request through them costs. No I/O.

While decoding, a token goes through one span after the other, so the sum of their times counts. The rows of a prompt
travel in steps, and all devices work at once: the slowest counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct

from node.measures.peers import PeerFigures
from node.model.unit import UnitRef
from node.planning.cost import ELEMENT_BYTES, Cost
from node.planning.figures import DeviceFigures
from protocol.identity import PeerId

STEP_ROWS = 32
"""Rows of a step of a prompt: enough for the kernels' full speed, few enough that all devices are soon busy."""
PASS_ROWS = 256
"""Rows of a prompt in a pass over several devices, or one that is lent to peers, at least. The devices wait for each
other at its ends, a lent pass waits for every exchange anew, and so many rows go in four waves. More gain little, and
whoever asks meanwhile waits until the pass is over."""


class SpanOffer(Struct, frozen=True):
    """A device that the user lets read prompts, and what it could compute."""

    peer_id: PeerId
    layers: frozenset[int]
    """Those that it holds whole."""
    figures: PeerFigures


class SpanPlan(Struct, frozen=True):
    """Consecutive layers and the device that computes them."""

    peer_id: PeerId
    layers: range


def cut_spans(layers: range, offers: Sequence[SpanOffer]) -> tuple[SpanPlan, ...]:
    """Give layers to devices: in proportion to their speed if all hold all of them, else each run of layers to the
    device that holds the longest. Layers that nobody holds are left out."""
    if not offers:
        return ()
    if all(offer.layers.issuperset(layers) for offer in offers):
        return _in_proportion(layers, offers)
    plans: list[SpanPlan] = []
    layer = layers.start
    while layer < layers.stop:
        runs = {offer.peer_id: _run_from(layer, layers, offer) for offer in offers}
        peer_id = max(runs, key=lambda peer_id: runs[peer_id])
        if runs[peer_id] > layer:
            plans.append(SpanPlan(peer_id, range(layer, runs[peer_id])))
        layer = max(runs[peer_id], layer + 1)
    return tuple(plans)


def choices(layers: range, offers: Sequence[SpanOffer]) -> list[tuple[SpanPlan, ...]]:
    """The cuts from which to choose: each device alone, the two fastest, the three fastest, and so on. Cuts that
    leave out more layers than others are not among them."""
    fastest = sorted(offers, key=lambda offer: (-offer.figures.row_macs_per_s, offer.peer_id))
    groups = [[offer] for offer in fastest] + [fastest[:count] for count in range(2, len(fastest) + 1)]
    cuts = [cut_spans(layers, group) for group in groups]
    most = max((_covered(cut) for cut in cuts), default=0)
    return [cut for cut in dict.fromkeys(cuts) if cut and _covered(cut) == most]


def span_cost(
    units: Sequence[UnitRef],
    device: DeviceFigures,
    spans: Sequence[SpanPlan],
    figures: Mapping[PeerId, PeerFigures],
    prompt_tokens: int,
    rest: Callable[[Sequence[UnitRef]], Cost] | None = None,
) -> Cost:
    """The cost of a request whose spans are computed by these devices, and all else here. A device whose span begins
    where another's ends is expected to get its rows straight from that one: its result comes here, but its rows do
    not go out from here, which is half of a round trip and of the bytes.

    Args:
        units: the units of the decoder's layers.
        rest: the cost of the layers that the spans leave out, and of all else, where they are lent unit by unit.
    """
    hidden = next(ref.num_inputs for ref in units if ref.kind == "qkv")
    macs: dict[int, int] = {}
    for ref in units:
        if ref.layer is not None:
            macs[ref.layer] = macs.get(ref.layer, 0) + ref.num_inputs * ref.num_outputs
    straight = [span for before, span in pairwise(spans) if before.layers.stop == span.layers.start]
    away = {layer for span in spans for layer in span.layers}
    here = [layer for layer in macs if layer not in away and rest is None]
    steps, last = divmod(max(prompt_tokens, 1), STEP_ROWS)
    rows = [STEP_ROWS] * steps + ([last] if last else [])

    def here_s(num_rows: int) -> float:
        each_s = device.layer_float_s.at(num_rows)
        return sum(macs[layer] * device.linear_s.at(num_rows) + each_s for layer in here)

    def away_s(span: SpanPlan, num_rows: int) -> float:
        of = figures[span.peer_id]
        speed = of.row_macs_per_s if num_rows == 1 else of.rows_macs_per_s
        total = num_rows * sum(macs[layer] for layer in span.layers)
        floats_s = len(span.layers) * device.layer_float_s.at(num_rows)
        way_s = of.rtt_s + 2 * ELEMENT_BYTES * num_rows * hidden / of.bytes_per_s
        return total / max(speed, 1.0) + floats_s + (way_s / 2 if span in straight else way_s)

    lent = Cost(device.ends_s + device.head_s, device.ends_s + device.head_s)
    if rest is not None:
        lent = rest([ref for ref in units if ref.layer not in away])
    stages = [[away_s(span, count) for span in spans] + [here_s(count)] for count in rows]
    ttft_s = sum(stages[0]) + sum(max(times) for times in stages[1:]) + lent.ttft_s
    token_s = sum(away_s(span, 1) for span in spans) + here_s(1) + lent.token_s
    row_bytes = ELEMENT_BYTES * hidden
    bytes_up = lent.bytes_up + row_bytes * (len(spans) - len(straight))
    bytes_down = lent.bytes_down + row_bytes * len(spans)
    is_measured = lent.is_measured and all(figures[span.peer_id].measured for span in spans)
    return Cost(ttft_s, token_s, len(spans) + lent.exchanges, bytes_up, bytes_down, is_measured)


def _in_proportion(layers: range, offers: Sequence[SpanOffer]) -> tuple[SpanPlan, ...]:
    speeds = [max(offer.figures.row_macs_per_s, 1.0) for offer in offers]
    total, passed, start = sum(speeds), 0.0, layers.start
    plans = []
    for offer, speed in zip(offers, speeds, strict=True):
        passed += speed
        stop = layers.start + round(len(layers) * passed / total)
        if stop > start:
            plans.append(SpanPlan(offer.peer_id, range(start, stop)))
            start = stop
    return tuple(plans)


def _run_from(layer: int, layers: range, offer: SpanOffer) -> int:
    """The end of the run of layers that a device holds from there on."""
    while layer < layers.stop and layer in offer.layers:
        layer += 1
    return layer


def _covered(cut: Sequence[SpanPlan]) -> int:
    return sum(len(span.layers) for span in cut)
