"""Messages of every type, as hypothesis draws them, and how two of them are compared."""

from typing import Any

import cbor2
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.codec import Received, decode_message
from protocol.envelope import (
    MAX_ID,
)
from protocol.errors import RemoteProtocolError
from protocol.finding.dialback import DialBack, DialBackResult, DialBackStatus
from protocol.identity import peer_id_of
from protocol.limits import (
    MAGIC,
    MAX_BLOB_PIECES,
    MAX_CONTROL_FRAME_BYTES,
    MAX_LAYERS,
    MAX_POSITIONS,
    PIECE_BYTES,
)
from protocol.linear.messages import ChunkBinding, Linear, LinearResult, Role, TrustedLinear, TrustedResult
from protocol.link.hello import Hello, HelloOk, HostedModel
from protocol.link.messages import Attach, GoAway, Pong
from protocol.membership.messages import (
    Claim,
    Digest,
    DigestEntry,
    Gossip,
    PingReq,
    PingResult,
    State,
    Sync,
    SyncOk,
)
from protocol.message import Cancel, ErrorReply, Message, Ping
from protocol.pairing.messages import (
    PairAnswer,
    PairAsk,
    PairConfirm,
    PairRefusal,
    PairRefuse,
    PairReveal,
    Unpair,
)
from protocol.spans.binding import SpanBinding, SpanRows
from protocol.spans.messages import SpanClose, SpanOpen, SpanOpened, SpanPass, SpanResult, SpanStep
from protocol.spans.onward import Onward
from protocol.transfer.messages import BlobAsk, BlobOutline, Credit, PieceAsk, PieceSlice
from protocol.transfer.outline import Outline

MAX_HEADER = MAX_CONTROL_FRAME_BYTES
relaxed = settings(deadline=None)

hashes = st.binary(min_size=32, max_size=32)
ids = st.integers(0, MAX_ID)
printable = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), max_size=64)
small = st.integers(0, 65535)


def hellos(kind: type[Hello]) -> st.SearchStrategy[Hello]:
    hosted = st.builds(HostedModel, hashes, st.lists(hashes, max_size=3).map(tuple))
    return st.builds(
        kind,
        public_key=hashes,
        versions=st.lists(small, max_size=16).map(tuple),
        agent=printable,
        addrs=st.lists(printable, max_size=8).map(tuple),
        data_port=small,
        hosted=st.lists(hosted, max_size=8).map(tuple),
        macs_per_s=st.integers(0, 1 << 62),
        work=st.lists(small, max_size=16).map(tuple),
        nonce=st.binary(min_size=16, max_size=16),
        proof=st.none() | hashes,
        observed=printable,
        operator=st.binary(min_size=16, max_size=16),
        clock_ms=st.integers(0, 1 << 62),
    )


keys = hashes
seqs = st.integers(0, (1 << 63) - 1)
envelopes = st.lists(st.binary(max_size=1200), max_size=4).map(tuple)
claims = st.lists(st.builds(Claim, keys, seqs, st.sampled_from([State.SUSPECT, State.DEAD]), keys), max_size=4).map(
    tuple
)
digests = st.builds(
    Digest,
    keys,
    st.none() | keys,
    st.lists(st.builds(DigestEntry, keys, seqs, st.binary(min_size=8, max_size=8)), max_size=4).map(tuple),
)
membership: st.SearchStrategy[Message] = st.one_of(
    st.builds(PingReq, keys, seqs),
    st.builds(PingResult, keys, seqs, st.booleans()),
    st.builds(Gossip, envelopes, claims),
    st.builds(Sync, keys, st.binary(max_size=1200)),
    st.builds(SyncOk, st.none() | digests, envelopes, claims, st.lists(keys, max_size=4).map(tuple)),
)
dialbacks: st.SearchStrategy[Message] = st.one_of(
    st.builds(DialBack, printable, st.binary(min_size=16, max_size=16)),
    st.builds(DialBackResult, st.binary(min_size=16, max_size=16), st.sampled_from(DialBackStatus)),
)

outlines = st.integers(1, 5).flatmap(
    lambda count: st.builds(
        Outline,
        st.integers((count - 1) * PIECE_BYTES + 1, count * PIECE_BYTES),
        st.lists(hashes, min_size=count, max_size=count).map(tuple),
    )
)
transfers: st.SearchStrategy[Message] = st.one_of(
    st.builds(BlobAsk, hashes),
    outlines.map(lambda outline: BlobOutline(outline.pieces[0], outline)),
    st.builds(PieceSlice, st.integers(0, PIECE_BYTES - 1), st.binary(min_size=1, max_size=99).map(memoryview)),
    st.builds(PieceAsk, hashes, st.integers(0, MAX_BLOB_PIECES - 1)),
    st.builds(Credit, st.integers(0, MAX_ID)),
)


@st.composite
def bindings(draw: st.DrawFn, role: Role) -> ChunkBinding:
    row_start = draw(st.integers(0, 500))
    tile_start = draw(st.integers(0, 2000))
    return ChunkBinding(
        draw(st.binary(min_size=16, max_size=16)),
        draw(ids),
        draw(hashes),
        draw(hashes),
        role,
        row_start,
        row_start + draw(st.integers(1, 12)),
        tile_start,
        tile_start + draw(st.integers(1, 48)),
    )


@st.composite
def shares(draw: st.DrawFn) -> Linear:
    binding = draw(bindings(Role.SHARE))
    num_inputs = draw(st.integers(0, 9))
    words = draw(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=9))
    return Linear(binding, rows=np.resize(np.array(words, dtype=np.uint32), (binding.num_rows, num_inputs)))


@st.composite
def results(draw: st.DrawFn) -> LinearResult:
    shape = (draw(st.integers(0, 5)), draw(st.integers(0, 5)))
    rows = np.arange(shape[0] * shape[1], dtype=np.uint32).reshape(shape)
    return LinearResult(draw(hashes), draw(st.integers(0, 1 << 62)), rows)


@st.composite
def plain_rows(draw: st.DrawFn) -> TrustedLinear:
    binding = draw(bindings(Role.PLAIN))
    values = draw(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=9))
    return TrustedLinear(binding, np.resize(np.array(values, dtype=np.float32), (binding.num_rows, 3)))


@st.composite
def plain_results(draw: st.DrawFn) -> TrustedResult:
    values = draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=9))
    return TrustedResult(draw(hashes), draw(st.integers(0, 1 << 62)), np.array([values], dtype=np.int32))


caches = st.binary(min_size=16, max_size=16)


@st.composite
def span_bindings(draw: st.DrawFn) -> SpanBinding:
    names = draw(st.lists(caches, min_size=1, max_size=5, unique=True))
    starts = [draw(st.integers(0, MAX_POSITIONS - 20)) for _ in names]
    parts = tuple(
        SpanRows(name, start, start + draw(st.integers(1, 9))) for name, start in zip(names, starts, strict=True)
    )
    first = draw(st.integers(0, MAX_LAYERS - 2))
    return SpanBinding(draw(ids), draw(hashes), first, draw(st.integers(first + 1, MAX_LAYERS)), parts)


@st.composite
def steps(draw: st.DrawFn) -> SpanStep:
    binding = draw(span_bindings())
    values = draw(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=9))
    rows = np.resize(np.array(values, dtype=np.float32), (binding.num_rows, 3))
    peers = draw(st.lists(st.tuples(hashes, hashes), max_size=2))
    way = tuple(Onward(peer_id_of(key), replace(binding, nonce=draw(ids)), seal) for key, seal in peers)
    return SpanPass(binding, rows, way, draw(hashes)) if draw(st.booleans()) else SpanStep(binding, rows, way)


@st.composite
def span_results(draw: st.DrawFn) -> SpanResult:
    values = draw(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=9))
    rows = np.array([values], dtype=np.float32)
    handed = draw(st.none() | hashes), draw(st.booleans())
    return SpanResult(draw(hashes), draw(st.integers(0, 1 << 62)), rows, *handed)


@st.composite
def openings(draw: st.DrawFn) -> SpanOpen:
    first, capacity = draw(st.integers(0, MAX_LAYERS - 2)), draw(st.integers(1, MAX_POSITIONS))
    end, reach = draw(st.integers(first + 1, MAX_LAYERS)), draw(st.integers(0, MAX_POSITIONS))
    return SpanOpen(draw(caches), draw(hashes), first, end, capacity, reach, draw(hashes))


spans: st.SearchStrategy[Message] = st.one_of(
    openings(), st.builds(SpanOpened, st.integers(0, 1 << 31)), steps(), span_results(), st.builds(SpanClose, caches)
)

attempts = st.binary(min_size=16, max_size=16)
pairing: st.SearchStrategy[Message] = st.one_of(
    st.builds(PairAsk, attempts, hashes),
    st.builds(PairAnswer, attempts, hashes),
    st.builds(PairReveal, attempts, hashes),
    st.builds(PairConfirm, attempts, st.binary(min_size=64, max_size=64), attempts, st.booleans()),
    st.builds(PairRefuse, attempts, st.sampled_from(PairRefusal)),
    st.builds(Unpair, hashes, st.booleans()),
)

messages: st.SearchStrategy[Message] = st.one_of(
    hellos(Hello),
    hellos(HelloOk),
    st.just(Ping()),
    st.builds(Pong, st.integers(0, 1 << 31)),
    st.builds(GoAway, printable),
    st.just(Attach()),
    st.builds(Cancel, ids),
    st.builds(ErrorReply, small, printable),
    st.builds(Linear, bindings(Role.PAD), hashes),
    shares(),
    results(),
    plain_rows(),
    plain_results(),
    pairing,
    membership,
    dialbacks,
    transfers,
    spans,
)


def same(first: Message, second: Message) -> bool:
    """Equality that compares arrays by content."""
    if type(first) is not type(second):
        return False
    for name in type(first).__struct_fields__:
        one, other = getattr(first, name), getattr(second, name)
        if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
            if one is None or other is None or one.dtype != other.dtype or one.shape != other.shape:
                return False
            if not np.array_equal(one, other):
                return False
        elif one != other:
            return False
    return True


def read(frames: list[Any], max_header: int = MAX_HEADER) -> Received | None:
    """The message, or None where it was refused in the one way that is allowed."""
    try:
        return decode_message(frames, max_header)
    except RemoteProtocolError as exc:
        assert len(str(exc)) < 512
        return None


# --- headers


def framed(header: object) -> list[bytes]:
    return [MAGIC + cbor2.dumps(header, canonical=True)]


# --- bodies

BINDING = ChunkBinding(bytes(16), 1, bytes(32), bytes(32), Role.SHARE, 0, 2, 0, 1)
ROWS = np.arange(6, dtype=np.uint32).reshape(2, 3)
SHARE = Linear(BINDING, rows=ROWS)
