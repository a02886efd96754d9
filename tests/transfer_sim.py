"""A fetch among simulated sources: one clock, one seed; loss of connections, stalls and lies are drawn from it."""

from __future__ import annotations

import hashlib
import heapq
import random
from dataclasses import dataclass, field

from protocol.limits import PIECE_BYTES, SLICE_BYTES
from protocol.message import Cancel, ErrorCode, ErrorReply, Message
from protocol.transfer.actions import Begin, Check, Drop, Send, Verdict, Wanted, Write
from protocol.transfer.fetch import Fetch, FetchConfig
from protocol.transfer.messages import BlobAsk, BlobOutline, Credit, PieceAsk, PieceSlice
from protocol.transfer.outline import Outline, num_pieces
from protocol.transfer.serve import PieceJob, Serving

HONEST = ("honest", "slow", "silent", "flaky", "forgetful")
LIARS = ("piece", "outline", "size", "order")
TICK_S = 0.1


def outline_of(content: bytes) -> Outline:
    pieces = range(0, len(content), PIECE_BYTES)
    hashes = tuple(hashlib.sha256(content[start : start + PIECE_BYTES]).digest() for start in pieces)
    return Outline(len(content), hashes)


@dataclass
class SimSource:
    """A peer that serves with the real `Serving`, in one of the manners above."""

    name: str
    manner: str
    blobs: dict[bytes, bytes]
    rng: random.Random
    serving: Serving[str] = field(default_factory=Serving)
    up: bool = True
    sent_bytes: int = 0
    hung: bool = False

    def lie_outline(self, sha256: bytes) -> Outline:
        """Another blob of the same size, which this liar has really got."""
        return outline_of(self.lie(sha256))

    def lie(self, sha256: bytes) -> bytes:
        content = bytearray(self.blobs[sha256])
        content[-1] ^= 1
        return bytes(content)

    def content(self, sha256: bytes) -> bytes:
        return self.lie(sha256) if self.manner == "outline" else self.blobs[sha256]

    def answer(self, message_id: int, message: Message, now: float) -> list[tuple[int, Message]]:
        match message:
            case Credit(total):
                self.serving.credit(self.name, total)
            case Cancel(request_id):
                self.serving.cancel(self.name, request_id)
            case BlobAsk(sha256) | PieceAsk(sha256, _) if sha256 not in self.blobs or (
                self.manner == "forgetful" and self.rng.random() < 0.2
            ):
                return [(message_id, ErrorReply(ErrorCode.NOT_FOUND, "not held here"))]
            case BlobAsk(sha256):
                outline = self.lie_outline(sha256) if self.manner == "outline" else outline_of(self.blobs[sha256])
                if self.manner == "size":
                    outline = outline_of(self.blobs[sha256][:-1] or b"two")
                return [(message_id, BlobOutline(sha256, outline))]
            case PieceAsk(sha256, index):
                size = outline_of(self.blobs[sha256]).piece_bytes(index)
                self.serving.ask(PieceJob(self.name, message_id, sha256, index, size))
        return []

    def pump(self, now: float) -> list[tuple[int, Message]]:
        if self.hung or (self.manner == "silent" and self.rng.random() < 0.02):
            self.hung = True
            return []
        out: list[tuple[int, Message]] = []
        budget = 1 if self.manner == "slow" else 8
        while budget and (job := self.serving.next(now)) is not None:
            budget -= 1
            start = job.index * PIECE_BYTES
            piece = bytearray(self.content(job.sha256)[start : start + job.num_bytes])
            if self.manner == "piece" and self.rng.random() < 0.5:
                piece[self.rng.randrange(len(piece))] ^= 1
            slices = [(at, memoryview(piece)[at : at + SLICE_BYTES]) for at in range(0, len(piece), SLICE_BYTES)]
            if self.manner == "order" and len(slices) > 1:
                slices.reverse()
            out += [(job.message_id, PieceSlice(at, data)) for at, data in slices]
            self.sent_bytes += len(piece)
        return out


class Simulation:
    """One fetching node. `disk` is what was written; `dropped` who was given up and whether as a liar."""

    def __init__(self, seed: int, blobs: list[bytes], manners: list[str], sizes_known: bool = True) -> None:
        self.rng = random.Random(seed)
        self.blobs = {hashlib.sha256(content).digest(): content for content in blobs}
        self.sources = {
            f"{index}-{manner}": SimSource(f"{index}-{manner}", manner, dict(self.blobs), self.rng)
            for index, manner in enumerate(manners)
        }
        self.fetch = Fetch(FetchConfig(stall_s=3.0, active_blobs=3))
        self.now = 100.0
        self.disk: dict[bytes, bytearray] = {}
        self.on_disk: dict[bytes, set[int]] = {}
        self.outlines: dict[bytes, Outline] = {}
        self.done: list[bytes] = []
        self.dropped: dict[str, Drop] = {}
        self.events: list[tuple[float, int, str, str, int, Message | None]] = []
        self.fetch.want(
            Wanted(sha256, 64 * PIECE_BYTES, len(content) if sizes_known else None)
            for sha256, content in self.blobs.items()
        )
        for name in self.sources:
            self.connect(name)

    def connect(self, name: str) -> None:
        source = self.sources[name]
        source.serving, source.up, source.hung = Serving(), True, False
        self.fetch.source_up(name, set(source.blobs), self.rng.getrandbits(60), self.now)

    def run(self, limit_s: float = 900.0) -> bool:
        """Until all is fetched, or for this long; whether it is."""
        end = self.now + limit_s
        while not self.fetch.is_done and self.now < end:
            self.step()
        return self.fetch.is_done

    def step(self) -> None:
        self.fetch.tick(self.now)
        self.obey()
        for name, source in self.sources.items():
            if source.manner == "flaky" and self.rng.random() < 0.03 and name not in self.dropped:
                self.fetch.source_down(name)  # with everything that is on its way
                self.events = [event for event in self.events if event[2] != name]
                self.connect(name)
            for message_id, message in source.pump(self.now):
                self.post("here", name, message_id, message)
        self.now += TICK_S
        while self.events and self.events[0][0] <= self.now:
            _at, _order, name, to, message_id, message = heapq.heappop(self.events)
            assert message is not None
            if to == "here":
                self.fetch.receive(name, message_id, message, self.now)
                self.obey()
            else:
                for answer_id, answer in self.sources[name].answer(message_id, message, self.now):
                    self.post("here", name, answer_id, answer)

    def post(self, to: str, name: str, message_id: int, message: Message) -> None:
        self.order = getattr(self, "order", 0) + 1
        heapq.heappush(self.events, (self.now + 0.05, self.order, name, to, message_id, message))

    def obey(self) -> None:
        for action in self.fetch.take_actions():
            match action:
                case Send(peer_id, message_id, message):
                    self.post("there", peer_id, message_id, message)
                case Begin(sha256, outline):
                    self.outlines[sha256] = outline
                    disk = self.disk.setdefault(sha256, bytearray(outline.size_bytes))
                    views = [disk[at : at + PIECE_BYTES] for at in range(0, len(disk), PIECE_BYTES)]
                    self.fetch.have(sha256, {index for index, view in enumerate(views) if outline.fits(index, view)})
                case Write(peer_id, sha256, index, data):
                    self.disk[sha256][index * PIECE_BYTES : index * PIECE_BYTES + len(data)] = data
                    self.fetch.written(peer_id, len(data))
                case Check(sha256):
                    whole = hashlib.sha256(self.disk[sha256]).digest() == sha256
                    self.fetch.checked(sha256, Verdict.WHOLE if whole else Verdict.FALSE_OUTLINE)
                case Drop(peer_id):
                    self.dropped[peer_id] = action

    @property
    def accused(self) -> set[str]:
        return {name for name, drop in self.dropped.items() if drop.lied}


def random_blob(rng: random.Random, max_pieces: int = 5) -> bytes:
    """A few distinct bytes, cheap to make, of a size that is rarely whole pieces."""
    size = rng.choice([1, 77, PIECE_BYTES, PIECE_BYTES + 1, rng.randrange(1, max_pieces * PIECE_BYTES)])
    return rng.randbytes(64) * (size // 64) + rng.randbytes(size % 64)


__all__ = ["HONEST", "LIARS", "Simulation", "num_pieces", "outline_of", "random_blob"]
