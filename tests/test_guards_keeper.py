"""The guard book on disk: private, sticky over restarts, never replaced silently."""

from __future__ import annotations

import random
import stat
from pathlib import Path

import pytest
from made_parts import identity

from node.errors import ConfigError
from node.guards import GuardKeeper
from node.guards.book import (
    MAX_CAUGHT,
    MAX_MODELS,
    MAX_SEEN,
    Guard,
    GuardBook,
    LanePlaces,
    read_book,
    write_book,
)
from node.guards.separation import Candidate
from protocol.identity import PeerId

UNITS = frozenset({b"u"})
PEERS = [Candidate(identity(index).peer_id, f"8.{index}.0.1", units=UNITS) for index in range(8)]
IDS = [peer.peer_id for peer in PEERS]


def keeper(path: Path | None, now: float = 1e9, seed: int = 1) -> GuardKeeper:
    return GuardKeeper(path, lambda: now, lambda peer_id: False, random.Random(seed))


def test_guards_are_the_same_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "guards.json"
    first = keeper(path).places("m", PEERS, IDS, 2)
    assert len(first.places) == 4 and None not in first.places
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for seed in range(5):
        assert keeper(path, 1e9 + 3600, seed).places("m", PEERS[::-1], IDS, 2) == first
    without = [peer for peer in PEERS if peer.peer_id != first.places[0]]
    again = keeper(path, 1e9 + 7200).places("m", without, IDS, 2)
    assert again.places == (None, *first.places[1:])
    away = f"guards of this node are away: …{(first.places[0] or '')[-6:]}; their places are kept for up to 7 days"
    assert away in again.notes and not first.notes


def test_a_liar_loses_its_place_at_once_and_for_good(tmp_path: Path) -> None:
    path = tmp_path / "guards.json"
    guards = keeper(path)
    liar = guards.places("m", PEERS, IDS, 1).places[1]
    assert liar is not None
    guards.caught(liar)
    for each in (guards, keeper(path, 1e9 + 60)):
        places = each.places("m", PEERS, IDS, 1).places
        assert liar not in places and None not in places


def test_any_number_of_liars_leave_a_book_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys cost nothing; a file that outgrew its limit would keep the node from starting."""
    monkeypatch.setattr("node.guards.keeper.MAX_CAUGHT", 4)
    path = tmp_path / "guards.json"
    guards = keeper(path)
    for index in range(20):
        guards.caught(identity(100 + index).peer_id)
        assert identity(100 + index).peer_id in guards._book.caught, "the newest loses its place in any case"
    assert len(guards._book.caught) == 4
    liar = guards.places("m", PEERS, IDS, 1).places[1]
    assert liar is not None
    guards.caught(liar)
    assert liar not in keeper(path, 1e9 + 60).places("m", PEERS, IDS, 1).places


def test_the_limits_of_the_book_fit_its_file(tmp_path: Path) -> None:
    """Filled to the last entry it is still read."""
    peers = [f"12D3KooW{number:044d}" for number in range(max(MAX_CAUGHT, MAX_SEEN))]
    guard = Guard(PeerId(peers[0]), 1.7e9 + 0.123456, 1.9e9 + 0.123456, 0.123456789)
    lanes = {f"{number:064x}": (LanePlaces(guard, guard),) * 8 for number in range(MAX_MODELS)}
    seen = {PeerId(peer): (1.7e9 + 0.123456, 1.8e9 + 0.123456) for peer in peers[:MAX_SEEN]}
    book = GuardBook(1.7e9, 1.7e9, lanes, seen, frozenset(PeerId(peer) for peer in peers[:MAX_CAUGHT]))
    write_book(tmp_path / "guards.json", book)
    assert read_book(tmp_path / "guards.json") == book


def test_a_damaged_book_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "guards.json"
    path.write_text('{"version": 1}')
    with pytest.raises(ConfigError, match=r"guards\.json.*move it away"):
        keeper(path)
    assert path.read_text() == '{"version": 1}'


def test_one_host_is_said_and_a_newcomer_too(tmp_path: Path) -> None:
    here = [Candidate(peer.peer_id, "127.0.0.1", units=UNITS) for peer in PEERS[:2]]
    chosen = keeper(None).places("m", here, IDS[:2], 1)
    assert len(chosen.places) == 2 and "on one host" in chosen.notes[0]
    path = tmp_path / "guards.json"
    keeper(path).places("m", PEERS[:2], IDS[:2], 1)
    later = keeper(path, 1e9 + 3 * 86400).places("m", PEERS[:4], IDS[:4], 2)
    assert len(later.places) == 2 and "known for less than a day" in later.notes[-1]


def test_a_peer_that_was_met_in_a_short_run_is_known_in_the_next(tmp_path: Path) -> None:
    path = tmp_path / "guards.json"
    short = keeper(path)
    short.look(IDS[:3])
    assert not path.exists(), "it is not written at every look"
    short.close()
    book = read_book(path)
    assert book is not None and set(book.seen) == set(IDS[:3])
    written = path.stat().st_mtime_ns
    keeper(path).close()
    assert path.stat().st_mtime_ns == written, "nothing new was seen"


def test_guards_of_a_second_model_over_the_same_peers_are_kept_too(tmp_path: Path) -> None:
    path = tmp_path / "guards.json"
    guards = keeper(path)
    first = guards.places("m", PEERS[:4], IDS, 2)
    second = guards.places("n", PEERS[:4], IDS, 2)
    book = read_book(path)
    assert book is not None and set(book.lanes) == {"m", "n"}
    again = keeper(path, 1e9 + 60, seed=9)
    assert again.places("m", PEERS[:4], IDS, 2) == first and again.places("n", PEERS[:4], IDS, 2) == second


def test_choosing_is_told_once_however_often_the_guards_are_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    clock = [1e9]
    guards = GuardKeeper(None, lambda: clock[0], lambda peer_id: False, random.Random(1))
    with caplog.at_level("INFO"):
        first = guards.places("m", PEERS, IDS, 2)
        for _ in range(5):
            clock[0] += 60
            present = [peer for peer in PEERS if peer.peer_id != first.places[0]]
            guards.places("m", present, [peer.peer_id for peer in present], 2)  # one guard is away, and ages
    assert caplog.text.count("chose new guards") == 1
