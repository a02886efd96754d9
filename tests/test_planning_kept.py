"""What was measured of peers outlives the process that measured it, and a damaged file is no obstacle."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from node.measures.peers import LARGE_MESSAGE_BYTES, UNMEASURED_BYTES_PER_S, Exchange, Measures
from node.planning.kept import KEPT_S, MAX_KEPT, KeptMeasures
from protocol.identity import PeerId, peer_id_of

MODEL = bytes(32)
ANNA, BEN = (peer_id_of(bytes([number]) * 32) for number in range(2))
NOW = 1.8e9


class Life:
    """One process."""

    def __init__(self, path: Path | None, now: float = NOW) -> None:
        self.measures = Measures()
        self.kept = KeptMeasures(path, self.measures, lambda: now)

    def meet(self, peer_id: PeerId, factor: float = 1.0) -> None:
        of = self.measures.of(peer_id)
        of.answered(MODEL, Exchange(1, 1_000_000, 5000, 0.003 * factor, 0.001 * factor))
        of.answered(MODEL, Exchange(32, 64_000_000, 5000, 0.01 * factor, 0.008 * factor))
        of.answered(MODEL, Exchange(32, 1000, 4 * LARGE_MESSAGE_BYTES, 0.1 * factor, 1e-6))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "measures.json"


def test_the_next_process_predicts_from_what_this_one_measured(path: Path) -> None:
    first = Life(path)
    first.meet(ANNA)
    expected = first.measures.of(ANNA).figures
    assert expected.measured and expected.knows_bandwidth and expected.bytes_per_s < UNMEASURED_BYTES_PER_S
    first.kept.write()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second = Life(path).measures
    found = second.of(ANNA).figures
    assert found.measured and found.knows_bandwidth
    for name in ("rtt_s", "row_macs_per_s", "rows_macs_per_s", "bytes_per_s"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name))
    assert not second.of(BEN).figures.measured


def test_new_figures_take_the_place_of_old_ones(path: Path) -> None:
    first = Life(path)
    first.meet(ANNA)
    first.kept.write()
    second = Life(path)
    before = second.measures.of(ANNA).figures.bytes_per_s
    for _ in range(20):
        second.meet(ANNA, factor=0.5)
    assert second.measures.of(ANNA).figures.bytes_per_s > 1.8 * before


def test_what_nobody_has_measured_again_is_forgotten(path: Path) -> None:
    first = Life(path)
    first.meet(ANNA)
    first.meet(BEN)
    first.kept.write()
    second = Life(path, NOW + 0.9 * KEPT_S)
    second.meet(BEN)
    second.kept.write()
    assert set(Life(path, NOW + 1.1 * KEPT_S).measures.known()) == {BEN}
    assert not Life(path, NOW - 1).measures.known(), "the clock says that this is not yet measured"


def test_where_nothing_is_measured_nothing_is_written(path: Path) -> None:
    first = Life(path)
    first.measures.of(ANNA).ponged(0.001, 0)
    first.kept.write()
    assert not path.exists()
    first.meet(ANNA)
    first.kept.write()
    written = path.read_bytes()
    path.chmod(0o644)
    Life(path).kept.write()
    assert path.read_bytes() == written and stat.S_IMODE(path.stat().st_mode) == 0o644
    nowhere = Life(None)
    nowhere.meet(ANNA)
    nowhere.kept.write()


def test_few_peers_are_kept_those_that_were_measured_last(path: Path) -> None:
    first = Life(path)
    first.meet(ANNA)
    first.kept.write()
    second = Life(path, NOW + 1)
    others = [peer_id_of(bytes([7, *number.to_bytes(2, "big")]) + bytes(29)) for number in range(MAX_KEPT)]
    for peer_id in others:
        second.meet(peer_id)
    second.kept.write()
    assert set(Life(path, NOW + 2).measures.known()) == set(others)


RIGHT = {"at": NOW, "way_s": 0.01}
DAMAGED = {
    "no JSON": b"{",
    "no text": b"\xff\xfe",
    "no object": b"[]",
    "no PeerID": json.dumps({"anna": RIGHT}).encode(),
    "no number": json.dumps({ANNA: {"at": NOW, "way_s": "soon"}}).encode(),
    "below zero": json.dumps({ANNA: {"at": NOW, "bytes_per_s": -1.0}}).encode(),
    "endless": json.dumps({ANNA: {"at": NOW, "way_s": 1e300}}).encode(),
    "not a number": json.dumps({ANNA: {"at": NOW, "way_s": float("nan")}}).encode(),
    "of a later version": json.dumps({ANNA: {**RIGHT, "jitter_s": 1.0}}).encode(),
    "too large": b" " * (1 << 17) + b"{}",
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_not_used_and_written_anew(path: Path, what: str, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(json.dumps({ANNA: RIGHT}).encode())
    assert Life(path).measures.of(ANNA).figures.rtt_s == 0.01
    path.write_bytes(DAMAGED[what])
    first = Life(path)
    assert not first.measures.known() and "measured anew" in caplog.text
    first.meet(BEN)
    first.kept.write()
    assert set(Life(path).measures.known()) == {BEN}


def test_what_would_not_be_read_is_not_written(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = Life(path)
    first.measures.of(ANNA).answered(MODEL, Exchange(1, 1_000_000, 5000, 3600.0, 0.001))
    first.kept.write()
    assert not path.exists() and caplog.text


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = Life(tmp_path / "gone" / "measures.json")
    first.meet(ANNA)
    first.kept.write()
    assert "cannot write" in caplog.text
