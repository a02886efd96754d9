"""What is measured of peers: means that follow, percentiles that wait, a claim that is forgotten at first sight."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.measures.peers import FASTEST_BYTES_PER_S, LARGE_MESSAGE_BYTES, Exchange, Measures, PeerMeasures
from node.measures.series import MIN_SAMPLES, WINDOW, Series

seconds = st.floats(1e-5, 30)
MODEL = b"m" * 32


@given(st.lists(seconds, min_size=1, max_size=3 * WINDOW))
@settings(deadline=None)
def test_a_series_knows_its_window(samples: list[float]) -> None:
    series = Series()
    for sample in samples:
        series.add(sample)
    last = sorted(samples[-WINDOW:])
    assert series.mean is not None and min(samples) - 1e-9 <= series.mean <= max(samples) + 1e-9
    assert series.median == last[len(last) // 2]
    if len(samples) < MIN_SAMPLES:
        assert series.percentile_95 is None
    else:
        assert series.percentile_95 is not None
        assert sum(sample <= series.percentile_95 for sample in last) >= 0.94 * len(last) - 1
        assert series.percentile_95 >= statistics.median_low(last)


def test_the_mean_follows_a_change() -> None:
    series = Series()
    for _ in range(30):
        series.add(1.0)
    for _ in range(10):
        series.add(2.0)
    assert series.mean is not None and 1.85 < series.mean < 2.0


def test_the_stated_speed_is_believed_until_the_first_result() -> None:
    peer = PeerMeasures(stated_macs_per_s=1e15)
    assert peer.figures.row_macs_per_s == 1e15 and not peer.figures.measured
    peer.answered(MODEL, Exchange(1, 1_000_000, 8000, 0.012, 0.01))
    assert peer.figures.row_macs_per_s == pytest.approx(1e8) and peer.figures.measured
    assert peer.figures.rows_macs_per_s == pytest.approx(1e8)


@given(seconds, st.floats(0, 100))
@settings(deadline=None)
def test_whatever_a_peer_says_of_its_time_the_whole_is_what_was_seen(latency_s: float, stated_s: float) -> None:
    peer = PeerMeasures(stated_macs_per_s=1e15)
    peer.answered(MODEL, Exchange(8, 1_000_000, 8000, latency_s, stated_s))
    expected = peer.figures.exchange_s(8, 1_000_000, 0)
    assert expected == pytest.approx(latency_s, rel=0.01, abs=2e-3)


def test_a_queue_is_waited_for_before_anything_else_is_known() -> None:
    idle, busy = PeerMeasures(1e9), PeerMeasures(1e9)
    for peer, queued in ((idle, 0), (busy, 50)):
        peer.answered(MODEL, Exchange(8, 10**6, 2 * LARGE_MESSAGE_BYTES, 0.02, 0.01))
        for _ in range(20):
            peer.ponged(0.001, queued)
    assert busy.figures.rtt_s > idle.figures.rtt_s + 0.3


def test_large_messages_tell_how_fast_bytes_travel() -> None:
    peer = PeerMeasures(1e9)
    peer.answered(MODEL, Exchange(1, 1000, 8000, 0.002, 0.001))
    peer.answered(MODEL, Exchange(128, 1000, 10_000_000, 1.002, 0.001))
    assert peer.figures.bytes_per_s == pytest.approx(1e7, rel=0.01)


def test_models_do_not_mix_and_neither_do_peers() -> None:
    measures = Measures()
    for _ in range(MIN_SAMPLES):
        measures.of("a").answered(MODEL, Exchange(1, 1000, 8000, 0.5, 0.1))  # type: ignore[arg-type]
    peer = measures.of("a")  # type: ignore[arg-type]
    assert peer.latency_p95_s(MODEL, 1) == 0.5 and peer.latency_p95_s(MODEL, 8) == 4.0
    assert peer.latency_p95_s(b"other", 1) is None and peer.latency_s(b"other", 1) is None
    assert peer.figures_for(MODEL).exchange_s(1, 10**9, 0) == 0.5, "a row that was seen is not computed"
    assert peer.figures_for(b"other").row_latency_s is None
    assert measures.of("b").latency_p95_s(MODEL, 1) is None  # type: ignore[arg-type]


def test_waiting_behind_requests_of_ones_own_is_not_the_way() -> None:
    peer = PeerMeasures(1e9)
    peer.answered(MODEL, Exchange(1, 1000, 8000, 0.002, 0.001))
    for place in range(4):
        peer.answered(MODEL, Exchange(128, 1000, 10_000_000, 1.001 * (place + 1) + 0.001, 0.001, 1.001 * place))
    assert peer.figures.bytes_per_s == pytest.approx(1e7, rel=0.01)
    peer.answered(MODEL, Exchange(128, 1000, 10_000_000, 60.0, 0.001, is_exact=False))
    assert peer.figures.bytes_per_s == pytest.approx(1e7, rel=0.01), "it came when this device was busy"
    assert peer.latency_s(MODEL, 128) == pytest.approx(3.004), "lateness is judged by the whole time"
    peer.answered(MODEL, Exchange(1, 1000, 8000, 0.5, 0.001, ahead_s=0.499))
    assert peer.figures.rtt_s == pytest.approx(0.001), "its way was over when the one before it was answered"


def test_what_moved_while_the_one_before_was_computed_does_not_tell_the_bandwidth() -> None:
    """The peer computes for 2 s, a message takes 1 s: only the first of four is waited for on its way."""
    peer = PeerMeasures(1e9)
    for _ in range(5):
        for place in range(4):
            ahead_s = 0.0 if place == 0 else 1.0 + 2.0 * place
            peer.answered(MODEL, Exchange(128, 1000, 10_000_000, 3.0 + 2.0 * place, 2.0, ahead_s))
    assert peer.figures.bytes_per_s == pytest.approx(1e7, rel=0.01)


def test_a_bandwidth_is_known_when_a_large_message_has_come() -> None:
    peer = PeerMeasures(1e9)
    assert not peer.figures.is_known(1)
    peer.answered(MODEL, Exchange(1, 1000, 8000, 0.002, 0.001))
    assert peer.figures.is_known(8000) and not peer.figures.is_known(LARGE_MESSAGE_BYTES)
    peer.answered(MODEL, Exchange(128, 1000, 10_000_000, 1.002, 0.001))
    assert peer.figures.is_known(LARGE_MESSAGE_BYTES)


def test_a_few_messages_that_seemed_to_take_no_time_do_not_make_a_way_fast() -> None:
    """Seen over a slow link: one answer in twenty was there when the one before it was read."""
    peer = PeerMeasures(1e9)
    for place in range(100):
        latency_s = 0.001 if place % 20 == 10 else 1.001
        peer.answered(MODEL, Exchange(128, 1000, 10_000_000, latency_s, 0.001))
    assert 0.9e7 < peer.figures.bytes_per_s < 1.3e7
    quick = PeerMeasures(1e9)
    quick.answered(MODEL, Exchange(128, 1000, 10_000_000, 0.001, 0.001))
    assert quick.figures.bytes_per_s == FASTEST_BYTES_PER_S
