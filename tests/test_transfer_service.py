"""What a node gives of its blobs, and what a fetch keeps on its disk."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from transfer_sim import outline_of

from node.errors import ConfigError
from node.serving.blobs import MAX_CONNECTIONS_A_PEER, MAX_KNOWN_A_PEER, MAX_OPEN_OUTLINES, BlobService, Reply
from node.serving.hosting import BlobPlace
from node.transfer.disk import BlobDisk
from node.transfer.jobs import KEPT_JOBS, Job, Jobs, JobState
from protocol.limits import MAX_OPEN_PIECES, PIECE_BYTES, SLICE_BYTES
from protocol.message import ErrorCode, ErrorReply, Message
from protocol.transfer.actions import Verdict
from protocol.transfer.messages import BlobAsk, BlobOutline, Credit, PieceAsk, PieceSlice

CONTENT = bytes(range(256)) * (2 * PIECE_BYTES // 256) + b"and a little more"
SHA256 = hashlib.sha256(CONTENT).digest()
PEER = "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB"


class Giver:
    """A service over one folder of blobs, without sockets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.woken = threading.Semaphore(0)
        self.service = BlobService(self.find, self.woken.release)
        self.service.start()

    def find(self, sha256: bytes) -> BlobPlace | None:
        path = self.folder / sha256.hex()
        return BlobPlace(path, path.stat().st_size) if path.exists() else None

    def say(self, message: Message, route: bytes = b"route", message_id: int = 1) -> ErrorReply | None:
        return self.service.handle(PEER, route, message_id, message)

    def replies(self, count: int) -> list[Reply]:
        replies: list[Reply] = []
        deadline = time.monotonic() + 10
        while len(replies) < count:
            assert time.monotonic() < deadline, replies
            reply = self.service.collect()
            if reply is None:
                self.woken.acquire(timeout=0.05)
            else:
                replies.append(reply)
        return replies


@pytest.fixture
def giver(tmp_path: Path) -> Iterator[Giver]:
    (tmp_path / SHA256.hex()).write_bytes(CONTENT)
    giver = Giver(tmp_path)
    yield giver
    giver.service.stop()


def code_of(refusal: ErrorReply | None) -> int | None:
    return None if refusal is None else refusal.code


def test_an_outline_then_pieces_in_slices_as_far_as_the_credit_reaches(giver: Giver) -> None:
    assert giver.say(BlobAsk(SHA256)) is None
    (outlined,) = giver.replies(1)
    assert outlined == Reply(b"route", 1, BlobOutline(SHA256, outline_of(CONTENT)))
    assert (
        giver.say(PieceAsk(SHA256, 2), message_id=2) is None and giver.say(PieceAsk(SHA256, 0), message_id=3) is None
    )
    assert giver.service.collect() is None and giver.service.wait_s() is None, "no credit, no slice"
    giver.say(Credit(PIECE_BYTES))
    (last,) = giver.replies(1)
    assert isinstance(last.message, PieceSlice) and bytes(last.message.data) == b"and a little more"
    assert giver.service.collect() is None, "the next goes beyond the credit"
    giver.say(Credit(2 * PIECE_BYTES))
    slices = [reply.message for reply in giver.replies(4)]
    assert [piece.offset for piece in slices if isinstance(piece, PieceSlice)] == list(
        range(0, PIECE_BYTES, SLICE_BYTES)
    )
    assert b"".join(piece.data for piece in slices if isinstance(piece, PieceSlice)) == CONTENT[:PIECE_BYTES]
    assert giver.service.sent_bytes == PIECE_BYTES + 17


def test_what_is_not_held_or_too_much_is_refused_at_once(giver: Giver) -> None:
    assert code_of(giver.say(BlobAsk(bytes(32)))) == code_of(giver.say(PieceAsk(bytes(32), 0))) == ErrorCode.NOT_FOUND
    assert code_of(giver.say(PieceAsk(SHA256, 3))) == ErrorCode.INVALID
    refusals = [giver.say(PieceAsk(SHA256, 0), message_id=number) for number in range(MAX_OPEN_PIECES + 1)]
    assert [code_of(refusal) for refusal in refusals[-2:]] == [None, ErrorCode.EXHAUSTED]
    routes = [f"route {number}".encode() for number in range(MAX_CONNECTIONS_A_PEER)]
    refusals = [giver.say(PieceAsk(SHA256, 0), route) for route in routes]
    assert [code_of(refusal) for refusal in refusals[-2:]] == [None, ErrorCode.EXHAUSTED], "one was open already"
    giver.service.gone(b"route")
    assert giver.say(PieceAsk(SHA256, 0), routes[-1]) is None


def test_outlines_that_wait_are_bounded(tmp_path: Path) -> None:
    (tmp_path / SHA256.hex()).write_bytes(CONTENT)
    giver = Giver(tmp_path)
    refusals = [giver.say(BlobAsk(SHA256), message_id=number) for number in range(MAX_OPEN_OUTLINES + 1)]
    assert code_of(refusals[-1]) == ErrorCode.EXHAUSTED
    assert len(giver.replies(MAX_OPEN_OUTLINES)) == MAX_OPEN_OUTLINES
    assert giver.say(BlobAsk(SHA256)) is None
    giver.service.stop()


def test_a_file_that_is_not_what_its_name_says_is_not_given(giver: Giver) -> None:
    damaged = bytearray(CONTENT)
    damaged[9] ^= 1
    (giver.folder / SHA256.hex()).write_bytes(damaged)
    giver.say(Credit(1 << 40))
    giver.say(BlobAsk(SHA256))
    giver.say(PieceAsk(SHA256, 0), message_id=2)
    codes = {reply.message.code for reply in giver.replies(2) if isinstance(reply.message, ErrorReply)}
    assert codes == {ErrorCode.UNAVAILABLE}


def test_whoever_opens_ever_new_connections_forgets_its_own(giver: Giver) -> None:
    """Else one peer would push the credit of all others out, or fill the memory with connections that are gone."""
    other = "12D3KooWQYV9dGMFoRzNStwpXztXaBUjtPqi6aU76ZgUriHhKust"
    giver.service.handle(other, b"honest", 1, Credit(PIECE_BYTES))
    for number in range(2000):
        route = number.to_bytes(5, "big")
        giver.say(Credit(PIECE_BYTES), route)
        giver.say(PieceAsk(SHA256, 0), route)
    assert len(giver.service._owners) == MAX_KNOWN_A_PEER + 1
    assert giver.service.handle(other, b"honest", 2, PieceAsk(SHA256, 1)) is None
    sent: list[bytes] = []
    while len(sent) < 4:
        (reply,) = giver.replies(1)
        sent += [reply.message.data] if reply.route == b"honest" else []
    assert b"".join(sent) == CONTENT[PIECE_BYTES : 2 * PIECE_BYTES]


def test_a_cancelled_piece_is_not_sent(giver: Giver) -> None:
    giver.say(PieceAsk(SHA256, 0), message_id=5)
    giver.service.cancel(b"route", 5)
    giver.say(Credit(1 << 40))
    assert giver.service.collect() is None and giver.service.wait_s() is None


# --- the other side's disk


def pieces_of(content: bytes) -> list[bytearray]:
    return [bytearray(content[at : at + PIECE_BYTES]) for at in range(0, len(content), PIECE_BYTES)]


def test_a_blob_survives_a_crash_between_any_two_pieces(tmp_path: Path) -> None:
    place, copy = tmp_path / "store" / "blob", tmp_path / "store" / "copy"
    outline = outline_of(CONTENT)
    for index, piece in enumerate(pieces_of(CONTENT)):
        disk = BlobDisk(tmp_path / "pieces", lambda sha256: [place, copy])
        assert disk.begin(SHA256, outline) == set(range(index))
        disk.write(SHA256, index, piece)
        disk.close()
    disk = BlobDisk(tmp_path / "pieces", lambda sha256: [place, copy])
    assert disk.begin(SHA256, outline) == {0, 1, 2}
    assert disk.check(SHA256) == (Verdict.WHOLE, set())
    assert place.read_bytes() == copy.read_bytes() == CONTENT and not list((tmp_path / "pieces").iterdir())
    disk.close()


def test_a_false_outline_is_told_from_a_damaged_disk(tmp_path: Path) -> None:
    false = bytearray(CONTENT)
    false[0] ^= 1
    disk = BlobDisk(tmp_path / "pieces", lambda sha256: [tmp_path / "blob"])
    disk.begin(SHA256, outline_of(bytes(false)))
    for index, piece in enumerate(pieces_of(bytes(false))):
        disk.write(SHA256, index, piece)
    assert disk.check(SHA256)[0] is Verdict.FALSE_OUTLINE
    assert disk.begin(SHA256, outline_of(CONTENT)) == {1, 2}, "what both outlines say is kept"
    disk.write(SHA256, 1, bytearray(b"scratched"))
    disk.write(SHA256, 0, pieces_of(CONTENT)[0])
    assert disk.check(SHA256) == (Verdict.DAMAGED, {0, 2})
    disk.close()


def test_a_disk_that_refuses_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "pieces").write_text("a file where a folder should be")
    with pytest.raises(ConfigError, match="--data-dir"):
        BlobDisk(tmp_path / "pieces", lambda sha256: [])


def test_jobs_are_listed_and_old_ones_make_room() -> None:
    jobs = Jobs()
    running = jobs.add(Job("pull", "a" * 64))
    for number in range(KEPT_JOBS + 9):
        jobs.add(Job("units", str(number))).end(JobState.DONE)
    jobs.add(Job("units", "last"))
    assert jobs.find(running.id) is running and jobs.running("pull", "a" * 64) is running
    assert len(jobs.all()) <= KEPT_JOBS + 3
    shown = running.as_json()
    assert set(shown) >= {
        "id",
        "kind",
        "model",
        "done_bytes",
        "total_bytes",
        "rate_bytes_s",
        "sources",
        "state",
        "error",
    }
