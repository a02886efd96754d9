"""What was measured of peers outlives the process that measured it, and a damaged file is no obstacle."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import pytest
from made_parts import KERNELS

from node.measures.peers import (
    FEW_PINGS,
    LARGE_MESSAGE_BYTES,
    UNMEASURED_BYTES_PER_S,
    UNMEASURED_RTT_S,
    Exchange,
    Measures,
)
from node.planning import watch
from node.planning.kept import KEPT_S, MAX_BYTES, MAX_KEPT, KeptMeasures
from node.planning.planner import Planner
from node.planning.watch import MeasuresWatch
from protocol.identity import PeerId, peer_id_of

MODEL = bytes(32)
ANNA, BEN = (peer_id_of(bytes([number]) * 32) for number in range(2))
NOW = 1.8e9


class Life:
    """One process."""

    def __init__(self, path: Path | None, now: float = NOW, ping_s: float = 0.001) -> None:
        self.measures = Measures()
        self.kept = KeptMeasures(path, self.measures, lambda: now)
        self._ping_s = ping_s

    def meet(self, peer_id: PeerId, factor: float = 1.0, with_bandwidth: bool = True) -> None:
        of = self.measures.of(peer_id)
        of.ponged(self._ping_s, 0)
        of.answered(MODEL, Exchange(1, 1_000_000, 5000, 0.003 * factor, 0.001 * factor))
        of.answered(MODEL, Exchange(32, 64_000_000, 5000, 0.01 * factor, 0.008 * factor))
        if with_bandwidth:
            of.answered(MODEL, Exchange(32, 64_000_000, 4 * LARGE_MESSAGE_BYTES, 0.1 * factor, 0.008 * factor))

    def lived(self, *peers: PeerId) -> Life:
        for peer_id in peers:
            self.meet(peer_id)
        self.kept.write()
        return self


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "measures.json"


def names_in(path: Path) -> set[str]:
    return set(json.loads(path.read_bytes()))


def test_the_next_process_predicts_from_what_this_one_measured(path: Path) -> None:
    expected = Life(path).lived(ANNA).measures.of(ANNA).figures
    assert expected.measured and expected.knows_bandwidth and expected.bytes_per_s < UNMEASURED_BYTES_PER_S
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second = Life(path)
    second.measures.of(ANNA).ponged(0.0012, 0)
    found = second.measures.of(ANNA).figures
    for name in ("rtt_s", "row_macs_per_s", "rows_macs_per_s", "bytes_per_s"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name))
    assert not found.measured and not found.knows_bandwidth, "nothing is learnt from such a prediction"
    second.meet(ANNA, factor=0.5)
    own = second.measures.of(ANNA).figures
    assert own.measured and own.bytes_per_s > 1.9 * expected.bytes_per_s, "what it has measured itself counts alone"


def test_over_another_way_only_the_speeds_are_those_of_before(path: Path) -> None:
    before = Life(path).lived(ANNA).measures.of(ANNA).figures
    second = Life(path)
    for number in range(FEW_PINGS):
        assert second.measures.of(ANNA).figures.rtt_s == before.rtt_s, "the first pings of a link are slow"
        second.measures.of(ANNA).ponged(0.02 + number / 1000, 0)
    found = second.measures.of(ANNA).figures
    assert found.rtt_s == 0.02 and found.bytes_per_s == UNMEASURED_BYTES_PER_S
    far = Life(path).measures.of(ANNA)
    far.ponged(0.03, 0)
    assert far.figures.rtt_s == 0.03, "nor are they as slow as this"
    assert found.row_macs_per_s == pytest.approx(before.row_macs_per_s)


def test_each_figure_is_forgotten_when_nobody_has_measured_it_again(path: Path) -> None:
    Life(path).lived(ANNA, BEN)
    second = Life(path, NOW + 0.9 * KEPT_S)
    second.meet(BEN, with_bandwidth=False)
    second.kept.write()
    third = Life(path, NOW + 1.1 * KEPT_S).measures
    assert not third.of(ANNA).figures.row_macs_per_s
    assert third.of(BEN).figures.row_macs_per_s and third.of(BEN).figures.bytes_per_s == UNMEASURED_BYTES_PER_S
    assert not Life(path, NOW - 1).measures.of(ANNA).figures.row_macs_per_s, "by this clock it is not measured yet"


def test_where_nothing_is_measured_nothing_is_written(path: Path) -> None:
    first = Life(path)
    first.measures.of(ANNA).ponged(0.001, 0)
    first.kept.write()
    assert not path.exists()
    first.lived(ANNA)
    written = path.read_bytes()
    Life(path, NOW + 1).kept.write()
    assert path.read_bytes() == written
    Life(None).lived(ANNA)


def test_few_peers_are_kept_those_that_were_measured_last(path: Path) -> None:
    Life(path).lived(ANNA)
    others = [peer_id_of(bytes([7, *number.to_bytes(2, "big")]) + bytes(29)) for number in range(MAX_KEPT)]
    Life(path, NOW + 1).lived(*others)
    assert names_in(path) == set(others) and path.stat().st_size < MAX_BYTES


RIGHT = {"way_s": [0.02, NOW]}
DAMAGED = {
    "no JSON": b"{",
    "no text": b"\xff\xfe",
    "no object": b"[]",
    "too large": b" " * MAX_BYTES + b"{}",
    "no PeerID": json.dumps({"anna": RIGHT}).encode(),
    "no number": json.dumps({ANNA: {"way_s": ["soon", NOW]}}).encode(),
    "no time": json.dumps({ANNA: {"way_s": [0.02]}}).encode(),
    "below zero": json.dumps({ANNA: {**RIGHT, "bytes_per_s": [-1.0, NOW]}}).encode(),
    "endless": json.dumps({ANNA: {"way_s": [1e300, NOW]}}).encode(),
    "not a number": json.dumps({ANNA: {"way_s": [float("nan"), NOW]}}).encode(),
    "of a later version": json.dumps({ANNA: {**RIGHT, "jitter_s": [1.0, NOW]}}).encode(),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_what_is_damaged_is_not_used(path: Path, what: str) -> None:
    path.write_bytes(json.dumps({ANNA: RIGHT}).encode())
    assert Life(path).measures.of(ANNA).figures.rtt_s == 0.02
    path.write_bytes(DAMAGED[what])
    first = Life(path)
    assert first.measures.of(ANNA).figures.rtt_s == UNMEASURED_RTT_S
    first.lived(BEN)
    assert names_in(path) == {BEN}


def test_a_damaged_entry_spoils_no_other(path: Path) -> None:
    path.write_bytes(json.dumps({ANNA: {"way_s": [-1, NOW]}, BEN: RIGHT}).encode())
    assert Life(path).measures.of(BEN).figures.rtt_s == 0.02


def test_a_peer_with_odd_figures_spoils_no_other(path: Path) -> None:
    first = Life(path)
    first.measures.of(ANNA).answered(MODEL, Exchange(1, 1_000_000, 5000, 3600.0, 0.001))
    first.lived(BEN)
    assert names_in(path) == {BEN}
    first.measures.of(ANNA).answered(MODEL, Exchange(1, 1_000_000, 5000, 0.001, 1.0))  # it states more than it took
    second = Life(path)
    second.measures.of(ANNA).answered(MODEL, Exchange(1, 1_000_000, 5000, 0.001, 1.0))
    second.kept.write()
    assert names_in(path) == {ANNA, BEN} and json.loads(path.read_bytes())[ANNA]["way_s"][0] == 0.0


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Life(tmp_path / "gone" / "measures.json").lived(ANNA)
    assert "cannot write" in caplog.text


def test_a_process_that_goes_on_keeps_them_at_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is killed has then lost little."""
    monkeypatch.setattr(watch, "INTERVAL_S", 0.01)
    path = tmp_path / "measures.json"
    planner = Planner(KERNELS, Measures(), path)
    planner.measures.of(ANNA).answered(MODEL, Exchange(1, 1_000_000, 5000, 0.003, 0.001))

    async def written() -> None:
        watching = asyncio.create_task(MeasuresWatch(planner).run())
        while not path.exists():
            await asyncio.sleep(0.01)
        watching.cancel()

    asyncio.run(asyncio.wait_for(written(), 10.0))
    assert list(json.loads(path.read_text())) == [ANNA]
