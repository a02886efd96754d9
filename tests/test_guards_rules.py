"""Guards: kept for months, replaced for reasons that are written down, drawn among those furthest apart."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_parts import identity
from msgspec.structs import replace

from node.guards.book import SIDES, Guard, GuardBook, LanePlaces, decode_book, encode_book
from node.guards.rules import (
    DAY_S,
    LIFETIME_S,
    LOOK_GAP_S,
    MAX_DOWN_S,
    PROBATION_S,
    choose,
    is_known,
    look,
    must_go,
)
from node.guards.separation import Candidate, Closeness, closeness, what_gave_way

PEERS = [identity(index).peer_id for index in range(24)]
UNITS = frozenset({b"u1", b"u2"})
MODEL = "m"
NOW = 1_700_000_000.0


def nobody(peer_id: object) -> bool:
    return False


def candidate(index: int, host: str | None = None, operator: int = 0, **more: object) -> Candidate:
    host = host or f"8.{index}.0.1"
    return Candidate(PEERS[index], host, operator.to_bytes(16), units=UNITS, **more)  # type: ignore[arg-type]


def book_of(now: float = NOW, **more: object) -> GuardBook:
    return replace(GuardBook(born=now, looked=now), **more)  # type: ignore[arg-type]


def places_of(book: GuardBook) -> list[list[Guard | None]]:
    return [[places.holder(side) for side in SIDES] for places in book.lanes.get(MODEL, ())]


# --- how far apart two peers are


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("8.8.8.8", "8.8.8.9", Closeness.SUBNET),
        ("8.8.8.8", "8.8.9.8", Closeness.NOTHING),
        ("8.8.8.8", "8.8.8.8", Closeness.HOST),
        ("[2a00:1450:4001:1::1]", "[2a00:1450:4001:ffff::2]", Closeness.SUBNET),
        ("[2a00:1450:4001::1]", "[2a00:1450:4002::1]", Closeness.NOTHING),
        ("[::ffff:8.8.8.8]", "8.8.8.9", Closeness.SUBNET),
        ("192.168.1.4", "192.168.1.5", Closeness.NOTHING),
        ("192.168.1.4", "192.168.1.4", Closeness.HOST),
        ("127.0.0.1", "127.0.0.1", Closeness.HOST),
        ("10.0.0.1", "8.8.8.8", Closeness.NOTHING),
        ("fox.example", "fox.example", Closeness.HOST),
        ("fox.example", "owl.example", Closeness.NOTHING),
        ("8.8.8.8", "[2a00:1450:4001::1]", Closeness.NOTHING),
    ],
)
def test_how_far_apart(one: str, other: str, expected: Closeness) -> None:
    assert closeness(candidate(1, one), candidate(2, other)) is expected
    assert closeness(candidate(2, other), candidate(1, one)) is expected


def test_operators_count_whatever_the_network_says_and_silence_is_no_operator() -> None:
    assert closeness(candidate(1, operator=7), candidate(2, operator=7)) is Closeness.OPERATOR
    assert closeness(candidate(1, operator=7), candidate(2, operator=8)) is Closeness.NOTHING
    assert closeness(candidate(1), candidate(2)) is Closeness.NOTHING
    assert closeness(candidate(1, paired=True), candidate(2, paired=True)) is Closeness.OPERATOR
    assert closeness(candidate(1, paired=True), candidate(2)) is Closeness.NOTHING


@given(st.integers(0, 3), st.integers(0, 3), st.booleans(), st.booleans())
@settings(deadline=None)
def test_a_claim_only_ever_separates_less_wanted_pairs(one: int, other: int, here: bool, there: bool) -> None:
    """Whatever a peer says of its operator, it never looks further from another than its address shows."""
    plain = closeness(candidate(1, "8.8.8.8"), candidate(2, "8.8.8.9"))
    claimed = closeness(candidate(1, "8.8.8.8", one, paired=here), candidate(2, "8.8.8.9", other, paired=there))
    assert claimed >= plain


# --- who is chosen


def drawn(candidates: list[Candidate], max_lanes: int = 2, seed: int = 0, book: GuardBook | None = None) -> GuardBook:
    return choose(book or book_of(), MODEL, candidates, max_lanes, nobody, NOW, random.Random(seed))


peers = st.lists(
    st.tuples(st.sampled_from(["8.1.1.1", "8.1.1.2", "9.9.9.9", "10.0.0.1", "127.0.0.1"]), st.integers(0, 3)),
    max_size=10,
).map(lambda rows: [candidate(index, host, operator) for index, (host, operator) in enumerate(rows)])


@given(peers, st.integers(1, 4), st.integers(0, 9))
@settings(deadline=None)
def test_nobody_holds_two_places_and_lanes_are_filled(there: list[Candidate], max_lanes: int, seed: int) -> None:
    lanes = places_of(drawn(there, max_lanes, seed))
    holders = [guard.peer_id for lane in lanes for guard in lane if guard is not None]
    assert len(set(holders)) == len(holders) and set(holders) <= {peer.peer_id for peer in there}
    assert len(lanes) == min(max_lanes, len(there) // 2)
    assert all(guard is not None for lane in lanes for guard in lane)
    ends = [guard.until - NOW for lane in lanes for guard in lane if guard is not None]
    assert all(LIFETIME_S[0] <= left <= LIFETIME_S[1] for left in ends)


@given(peers, st.integers(0, 9))
@settings(deadline=None)
def test_the_first_lane_is_as_far_apart_as_can_be(there: list[Candidate], seed: int) -> None:
    by_id = {peer.peer_id: peer for peer in there}
    lanes = places_of(drawn(there, 1, seed))
    if not lanes:
        assert len(there) < 2
        return
    pad, share = (by_id[guard.peer_id] for guard in lanes[0] if guard is not None)
    pairs = [(one, other) for one in there for other in there if one is not other]
    assert closeness(pad, share) == min(closeness(*pair) for pair in pairs)


@given(peers, peers, st.integers(1, 4), st.integers(0, 9), st.floats(0, LIFETIME_S[0] - DAY_S))
@settings(deadline=None)
def test_places_are_kept_whoever_comes_or_goes(
    before: list[Candidate], after: list[Candidate], max_lanes: int, seed: int, later_s: float
) -> None:
    book = drawn(before, max_lanes, seed)
    again = choose(book, MODEL, after, max_lanes, nobody, NOW + later_s, random.Random(seed + 1))
    for lane, kept in zip(places_of(book), places_of(again), strict=False):
        assert kept == lane
    assert len(places_of(again)) >= len(places_of(book))


def test_an_absent_guard_leaves_its_place_empty() -> None:
    book = drawn([candidate(1), candidate(2)], 1)
    newcomers = [candidate(index) for index in (3, 4, 5)]
    again = drawn(newcomers, 1, book=book)
    assert places_of(again) == places_of(book)


def test_guards_stay_for_half_a_year_at_least() -> None:
    """Looked at every day, among ever new peers: each change is a new chance for an adversary."""

    def guards(book: GuardBook) -> set[object]:
        return {guard.peer_id for lane in places_of(book) for guard in lane if guard is not None}

    book = drawn([candidate(1), candidate(2)], 1)
    first = guards(book)
    assert len(first) == 2
    for day in range(1, 180):
        now = NOW + day * DAY_S
        around = [candidate(index) for index in (1, 2, 3 + day % 20)]
        book = look(book, {each.peer_id for each in around}, now)
        book = choose(book, MODEL, around, 1, nobody, now, random.Random(day))
        assert guards(book) == first, f"on day {day}"


@pytest.mark.parametrize("reason", ["old", "down", "banned", "caught"])
def test_a_guard_is_replaced_for_a_reason_and_its_partner_stays(reason: str) -> None:
    book = drawn([candidate(1), candidate(2)], 1)
    [[pad, share]] = places_of(book)
    assert pad is not None and share is not None
    now, banned = NOW, nobody
    if reason == "old":
        now = pad.until + 1
        share = replace(share, until=now + DAY_S)
        book = replace(book, lanes={MODEL: (LanePlaces(pad, share),)})
    elif reason == "down":
        pad = replace(pad, down_s=MAX_DOWN_S)
        book = replace(book, lanes={MODEL: (LanePlaces(pad, share),)})
    elif reason == "banned":
        banned = lambda peer_id: peer_id == pad.peer_id  # noqa: E731
    else:
        book = replace(book, caught=frozenset({pad.peer_id}))
    assert must_go(pad, book.caught, banned, now)
    there = [candidate(1), candidate(2), candidate(3)]
    book = replace(book, seen={PEERS[3]: (now - 2 * PROBATION_S, now)})
    free = [peer for peer in there if peer.peer_id != pad.peer_id or reason != "old"]
    again = choose(book, MODEL, free, 1, banned, now, random.Random(1))
    [[new, kept]] = places_of(again)
    assert kept == share and new is not None
    if reason in ("banned", "caught", "old"):
        assert new.peer_id == PEERS[3]
    else:
        assert new.peer_id != share.peer_id and new.down_s == 0


def test_a_newcomer_waits_a_day_unless_the_book_is_young() -> None:
    there = [candidate(1), candidate(2)]
    assert places_of(drawn(there))
    old = book_of(born=NOW - 2 * PROBATION_S, seen={peer.peer_id: (NOW - 60, NOW) for peer in there})
    assert places_of(drawn(there, book=old)) == []
    known = replace(old, seen={peer.peer_id: (NOW - PROBATION_S, NOW) for peer in there})
    assert len(places_of(drawn(there, book=known))) == 1
    assert is_known(known, PEERS[1], NOW) and not is_known(old, PEERS[1], NOW)


def test_lanes_cover_what_no_lane_covers_yet() -> None:
    parts = [frozenset({b"u1"}), frozenset({b"u2"})]
    there = [replace(candidate(index), units=parts[index % 2]) for index in range(1, 5)]
    lanes = places_of(drawn(there, 2))
    units = {peer.peer_id: peer.units for peer in there}
    covered = [units[pad.peer_id] & units[share.peer_id] for pad, share in lanes if pad and share]
    assert sorted(covered, key=sorted) == sorted(parts, key=sorted)


def test_a_guard_of_another_model_is_preferred_and_keeps_its_side() -> None:
    there = [candidate(index) for index in range(1, 9)]
    book = drawn(there, 1)
    again = choose(book, "other", there, 1, nobody, NOW, random.Random(5))
    assert {peer: side for peer, side in again.roles().items()} == book.roles()


# --- looking


@given(st.lists(st.tuples(st.booleans(), st.floats(1, 3 * LOOK_GAP_S)), max_size=30))
@settings(deadline=None)
def test_absence_is_counted_only_while_this_node_was_there(looks: list[tuple[bool, float]]) -> None:
    book, now, expected = drawn([candidate(1), candidate(2)], 1), NOW, 0.0
    for up, gap_s in looks:
        now += gap_s
        book = look(book, PEERS[1:3] if up else PEERS[2:3], now)
        expected = 0.0 if up else expected + (gap_s if gap_s <= LOOK_GAP_S else 0.0)
        downs = {guard.peer_id: guard.down_s for lane in places_of(book) for guard in lane if guard}
        assert downs[PEERS[2]] == 0.0 and downs[PEERS[1]] == pytest.approx(expected)


def test_a_clock_that_jumps_back_counts_nothing() -> None:
    book = look(drawn([candidate(1), candidate(2)], 1), [], NOW - 1e6)
    assert all(guard.down_s == 0 for lane in places_of(book) for guard in lane if guard)


def test_a_week_away_is_enough() -> None:
    book, now = drawn([candidate(1), candidate(2)], 1), NOW
    for _ in range(int(MAX_DOWN_S / 300) + 1):
        now += 300
        book = look(book, [PEERS[2]], now)
    gone = next(guard for lane in places_of(book) for guard in lane if guard and guard.peer_id == PEERS[1])
    assert must_go(gone, (), nobody, now) and now - NOW < MAX_DOWN_S + 600


# --- the file


@given(peers, st.integers(0, 9))
@settings(deadline=None)
def test_a_book_survives_its_file(there: list[Candidate], seed: int) -> None:
    book = look(drawn(there, 3, seed), [peer.peer_id for peer in there], NOW + 60)
    book = replace(book, caught=frozenset(PEERS[:2]))
    assert decode_book(encode_book(book)) == book


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 2}', '{"version": 1, "lanes": 3}'])
def test_what_is_no_book_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        decode_book(text)


def test_what_gave_way_is_said() -> None:
    one, two, three = candidate(1, "127.0.0.1"), candidate(2, "127.0.0.1"), candidate(3)
    assert what_gave_way([(one, three)]) == ()
    (note,) = what_gave_way([(one, two), (one, three)])
    assert note == "both guards of a lane are on one host (1 of 2 lanes): no better separated peers were available"
