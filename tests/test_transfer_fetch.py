"""Fetching from several sources: whatever they do, the bytes are right, and only liars are accused."""

from __future__ import annotations

import hashlib
import random

import pytest
from transfer_sim import HONEST, LIARS, Simulation, outline_of, random_blob

from protocol.limits import PIECE_BYTES
from protocol.message import ErrorCode, ErrorReply
from protocol.transfer.actions import Drop, Send, Verdict, Wanted
from protocol.transfer.blob import Blob
from protocol.transfer.fetch import Fetch, FetchConfig
from protocol.transfer.messages import BlobAsk, BlobOutline, Credit, PieceAsk, PieceSlice


def check(simulation: Simulation) -> None:
    """What holds for every fetch that ends."""
    assert {sha256: bytes(content) for sha256, content in simulation.disk.items()} == simulation.blobs
    honest = {name for name, source in simulation.sources.items() if source.manner in HONEST}
    assert not simulation.accused & honest, simulation.dropped


@pytest.mark.parametrize("seed", range(25))
def test_a_fetch_ends_right_among_faults_and_liars(seed: int) -> None:
    rng = random.Random(seed)
    manners = ["honest", *rng.choices(HONEST + LIARS, k=rng.randrange(5))]
    rng.shuffle(manners)
    blobs = [random_blob(rng) for _ in range(rng.randrange(1, 5))]
    simulation = Simulation(seed, blobs, manners, sizes_known=rng.random() < 0.5)
    assert simulation.run(), f"seed {seed}, {manners}: {simulation.dropped}"
    check(simulation)


@pytest.mark.parametrize("manner", LIARS)
def test_every_liar_is_named(manner: str) -> None:
    """Two that tell the same lie outvote one honest source, for as long as the blob is not whole."""
    blob = random.Random(1).randbytes(4 * PIECE_BYTES + 5)
    simulation = Simulation(1, [blob], [manner, manner, "honest"], sizes_known=manner == "size")
    assert simulation.run(), simulation.dropped
    check(simulation)
    assert simulation.accused == {f"0-{manner}", f"1-{manner}"}, simulation.dropped


def test_a_false_outline_costs_no_more_than_the_pieces_in_which_it_is_false() -> None:
    blob = random.Random(2).randbytes(6 * PIECE_BYTES)
    simulation = Simulation(2, [blob], ["outline", "outline", "honest"])
    assert simulation.run()
    assert simulation.sources["2-honest"].sent_bytes == PIECE_BYTES, "the other five were as the liars said"


def test_alone_with_liars_nothing_is_believed() -> None:
    blob = random.Random(3).randbytes(2 * PIECE_BYTES + 1)
    simulation = Simulation(3, [blob], ["outline", "piece"])
    assert not simulation.run(60.0)
    assert simulation.accused == {"0-outline", "1-piece"}
    assert simulation.fetch.unserved == list(simulation.blobs)


def test_work_is_shared_by_speed_and_the_last_piece_does_not_wait_for_the_slowest() -> None:
    blob = random.Random(4).randbytes(64) * (40 * PIECE_BYTES // 64)
    simulation = Simulation(4, [blob], ["honest", "honest", "slow"])
    assert simulation.run(60.0)
    sent = {name: source.sent_bytes for name, source in simulation.sources.items()}
    assert sent["0-honest"] > sent["2-slow"] < sent["1-honest"], sent
    assert sum(sent.values()) <= len(blob) + 4 * PIECE_BYTES, "little is asked for twice"


def test_what_is_on_the_disk_is_not_fetched_again() -> None:
    blob = random.Random(5).randbytes(8 * PIECE_BYTES)
    before = Simulation(5, [blob], ["honest"])
    while len(before.disk.get(next(iter(before.blobs)), b"").strip(b"\0")) < 3 * PIECE_BYTES:
        before.step()
    after = Simulation(6, [blob], ["honest"])
    after.disk = before.disk
    outline, disk = outline_of(blob), next(iter(before.disk.values()))
    present = sum(outline.fits(i, disk[i * PIECE_BYTES : (i + 1) * PIECE_BYTES]) for i in range(8))
    assert 0 < present < 8
    assert after.run()
    check(after)
    assert after.sources["0-honest"].sent_bytes == (8 - present) * PIECE_BYTES


def started(sizes: list[int], window: int = 4) -> tuple[Fetch, list[bytes]]:
    """A fetch of blobs of these sizes (in pieces) with one source that has stated their outlines."""
    fetch = Fetch(FetchConfig(window_bytes=window * PIECE_BYTES))
    rng = random.Random(9)
    blobs = [rng.randbytes(32) for _ in sizes]
    outlines = {
        blob: outline_of(bytes([i]) * (n * PIECE_BYTES)) for i, (blob, n) in enumerate(zip(blobs, sizes, strict=True))
    }
    fetch.want(Wanted(blob, 1 << 40, outlines[blob].size_bytes) for blob in blobs)
    fetch.source_up("a", blobs, 0, 0.0)
    fetch.tick(0.0)
    for action in fetch.take_actions():
        if isinstance(action, Send) and isinstance(action.message, BlobAsk):
            fetch.receive(
                "a", action.message_id, BlobOutline(action.message.sha256, outlines[action.message.sha256]), 0.0
            )
    fetch.tick(0.0)
    for blob in blobs:
        fetch.have(blob, ())
    fetch.take_actions()
    fetch.tick(0.0)
    return fetch, blobs


def asks(fetch: Fetch) -> list[Send]:
    return [a for a in fetch.take_actions() if isinstance(a, Send) and isinstance(a.message, PieceAsk)]


def test_no_more_is_asked_than_the_window_holds_and_credit_follows_what_is_written() -> None:
    fetch, _blobs = started([20])
    asked = asks(fetch)
    assert [send.message.index for send in asked] == [0, 1, 2, 3]
    piece = bytes(PIECE_BYTES)
    for send in asked:
        for at in range(0, PIECE_BYTES, 1 << 18):
            fetch.receive("a", send.message_id, PieceSlice(at, memoryview(piece)[at : at + (1 << 18)]), 0.1)
    assert not asks(fetch) and fetch.sources == ["a"]
    fetch.tick(0.1)
    assert len(asks(fetch)) == 4, "asked ahead: the source sends them when credit comes"
    fetch.written("a", PIECE_BYTES)
    assert not fetch.take_actions(), "a credit for every piece would be chatter"
    fetch.written("a", PIECE_BYTES)
    assert [send.message for send in fetch.take_actions()] == [Credit(6 * PIECE_BYTES)]


def test_more_than_the_credit_ends_the_source_and_is_no_lie() -> None:
    fetch, _blobs = started([20])
    piece = memoryview(bytes(1 << 18))
    for send in asks(fetch):
        for at in range(4):
            fetch.receive("a", send.message_id, PieceSlice(at << 18, piece), 0.0)
    fetch.tick(0.0)
    fifth = asks(fetch)[0]
    assert fetch.sources == ["a"], "four pieces of credit, four pieces sent"
    fetch.receive("a", fifth.message_id, PieceSlice(0, piece), 0.0)
    drops = [action for action in fetch.take_actions() if isinstance(action, Drop)]
    assert [(drop.lied, drop.reason) for drop in drops] == [(False, "sent more than it had credit for")]


def test_slices_that_nobody_asked_for_end_the_source_and_those_given_up_do_not() -> None:
    fetch, blobs = started([20])
    first, second = asks(fetch)[:2]
    piece = memoryview(bytes(1 << 18))
    fetch.receive("a", first.message_id, PieceSlice(0, piece), 0.0)
    fetch.forget(blobs)
    for at in (1, 2, 3):
        fetch.receive("a", first.message_id, PieceSlice(at << 18, piece), 0.0)
    assert fetch.sources == ["a"]
    fetch.receive("a", first.message_id, PieceSlice(0, piece), 0.0)
    drops = [action for action in fetch.take_actions() if isinstance(action, Drop)]
    assert [(drop.lied, drop.reason) for drop in drops] == [(False, "sent pieces that nobody asked for")]
    assert second.message_id != first.message_id and fetch.sources == []


def test_whoever_states_two_outlines_of_one_blob_has_lied() -> None:
    """There is one true outline; whoever came back with another each time would fill the memory with them."""
    fetch, blobs = started([20])
    fetch.source_down("a")
    fetch.source_up("a", blobs, 1000, 1.0)
    fetch.take_actions()
    fetch.tick(1.0)
    asked = next(a for a in fetch.take_actions() if isinstance(a, Send) and isinstance(a.message, BlobAsk))
    fetch.receive("a", asked.message_id, BlobOutline(blobs[0], outline_of(bytes(20 * PIECE_BYTES - 1) + b"x")), 1.0)
    assert [action.lied for action in fetch.take_actions() if isinstance(action, Drop)] == [True]


def test_a_silent_source_is_given_up_in_the_end() -> None:
    fetch, _blobs = started([3])
    for second in range(1, 60):
        fetch.tick(float(second))
    drops = [action for action in fetch.take_actions() if isinstance(action, Drop)]
    assert [drop.lied for drop in drops] == [False]


@pytest.mark.parametrize(
    ("code", "dropped"),
    [
        (ErrorCode.NOT_FOUND, False),
        (ErrorCode.UNAVAILABLE, False),
        (ErrorCode.EXHAUSTED, False),
        (ErrorCode.UNIMPLEMENTED, True),
    ],
)
def test_a_refusal_is_no_lie(code: ErrorCode, dropped: bool) -> None:
    fetch, blobs = started([3])
    for send in asks(fetch):
        fetch.receive("a", send.message_id, ErrorReply(code, "no"), 1.0)
    drops = [action for action in fetch.take_actions() if isinstance(action, Drop)]
    assert not any(drop.lied for drop in drops) and (fetch.sources == []) == dropped
    fetch.tick(1.5)
    assert (fetch.unserved == blobs) == (code is not ErrorCode.EXHAUSTED)


def test_urgent_blobs_first_then_the_rare_ones() -> None:
    from protocol.transfer.choice import fetch_order

    assert fetch_order([("late", 1, 1, 0), ("common", 0, 3, 1), ("rare", 0, 1, 2), ("nowhere", 0, 0, 3)]) == [
        "rare",
        "common",
        "late",
    ]


def test_a_damaged_disk_is_mended_and_nobody_accused() -> None:
    fetch, blobs = started([1, 2])
    fetch.have(blobs[1], {0, 1})
    fetch.checked(blobs[1], Verdict.DAMAGED)
    fetch.have(blobs[1], {0})
    fetch.tick(1.0)
    assert [send.message for send in asks(fetch) if send.message.sha256 == blobs[1]][-1:] == [PieceAsk(blobs[1], 1)]
    assert fetch.sources == ["a"]


@pytest.mark.parametrize("size_bytes", [None, 5])
def test_no_larger_blob_is_believed_than_was_wanted(size_bytes: int | None) -> None:
    """Before any of it is fetched: the file of a blob is made in its whole size."""
    for num_bytes, is_believable in ((5, True), (6, False), (PIECE_BYTES + 1, False)):
        content = bytes(num_bytes)
        sha256 = hashlib.sha256(content).digest()
        blob = Blob(Wanted(sha256, 5, size_bytes), 0)
        assert blob.is_believable(outline_of(content)) == is_believable
