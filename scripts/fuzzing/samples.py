"""Real messages of every wing of the protocol, one or two of each type: what mutations begin with."""

from __future__ import annotations

import hashlib

import numpy as np
from msgspec.structs import replace

from protocol.codec import encode_message
from protocol.finding.dialback import DialBack, DialBackResult, DialBackStatus
from protocol.finding.invitation import Invitation, InvitedModel
from protocol.identity import Identity, peer_id_of
from protocol.limits import PIECE_BYTES
from protocol.linear.messages import ChunkBinding, Linear, LinearResult, Role, TrustedLinear, TrustedResult
from protocol.link.admission import SwarmKey
from protocol.link.hello import Hello, HostedModel, hello_ok
from protocol.link.messages import Attach, GoAway, Pong
from protocol.membership.messages import Claim, Digest, DigestEntry, Gossip, PingReq, PingResult, State, Sync, SyncOk
from protocol.membership.records import (
    Capabilities,
    HostedLayers,
    PeerFacts,
    PeerRecord,
    PublishedModel,
    sign_record,
)
from protocol.message import Cancel, ErrorReply, Message, Ping
from protocol.multiaddr import parse_multiaddr
from protocol.pairing.messages import PairAnswer, PairAsk, PairConfirm, PairRefusal, PairRefuse, PairReveal, Unpair
from protocol.spans.binding import SpanBinding, SpanRows
from protocol.spans.messages import SpanClose, SpanOpen, SpanOpened, SpanPass, SpanResult, SpanStep
from protocol.spans.onward import Onward
from protocol.transfer.messages import BlobAsk, BlobOutline, Credit, PieceAsk, PieceSlice
from protocol.transfer.outline import Outline
from scripts.fuzzing.forms import join_frames

ME, OTHER = Identity.from_seed(bytes(range(32))), Identity.from_seed(bytes(range(32, 64)))
KEY = SwarmKey(bytes(range(64, 96)))
HASH, NONCE = hashlib.sha256(b"a unit").digest(), bytes(range(16))
ADDRESS = "/ip4/127.0.0.1/tcp/4711"


def record() -> PeerRecord:
    """A record that says something in every field."""
    held = (HostedLayers(HASH, ((0, 4), (9, 12))),)
    can = Capabilities((1, 2), 5 * 10**9, 1 << 33, 4712, held, NONCE, held, (PublishedModel(HASH, "story"),))
    return sign_record(ME, PeerFacts((ADDRESS, "/dns4/example.org/tcp/1"), "kekahyde/0.1", (1,), can), 77)


def invitation() -> Invitation:
    """An invitation to a private swarm, by two members."""
    addresses = tuple(parse_multiaddr(f"{ADDRESS}/p2p/{member.peer_id}") for member in (ME, OTHER))
    return Invitation(addresses, 1 << 35, KEY.secret, (InvitedModel(HASH, "story"),))


def link_messages() -> list[Message]:
    """Hellos, pings, errors, and what finds an address."""
    hosted = (HostedModel(HASH, (HASH, NONCE * 2)), HostedModel(NONCE * 2, ()))
    hello = Hello(ME.public_key, (1,), "kekahyde/0.1", (ADDRESS,), 4712, hosted, 10**9, (1, 2), NONCE)
    proved = KEY.prove(hello, OTHER.public_key)
    answer = KEY.prove_answer(proved, hello_ok(replace(hello, public_key=OTHER.public_key)))
    simple: list[Message] = [Ping(), Pong(7), GoAway("restarting"), Attach(), Cancel(9), ErrorReply(2, "busy")]
    dialled: list[Message] = [DialBack(ADDRESS, NONCE), DialBackResult(NONCE, DialBackStatus.REACHED)]
    return [hello, proved, answer, *simple, *dialled]


def membership_messages() -> list[Message]:
    """Gossip and its exchange."""
    envelope, claim = record().envelope, Claim(ME.public_key, 7, State.SUSPECT, OTHER.public_key)
    digest = Digest(bytes(32), None, (DigestEntry(ME.public_key, 7, bytes(8)),))
    return [
        PingReq(ME.public_key, 3),
        PingResult(ME.public_key, 3, True),
        Gossip((envelope,), (claim,)),
        Sync(OTHER.public_key, envelope),
        SyncOk(digest, (envelope,), (claim,), (OTHER.public_key,)),
        SyncOk(replace(digest, end=ME.public_key)),
    ]


def pairing_messages() -> list[Message]:
    """From the first question to the end of a pairing."""
    return [
        PairAsk(NONCE, HASH),
        PairAnswer(NONCE, HASH),
        PairReveal(NONCE, HASH),
        PairConfirm(NONCE, bytes(64), NONCE, True),
        PairRefuse(NONCE, PairRefusal.MISMATCH),
        Unpair(HASH, True),
    ]


def linear_messages() -> list[Message]:
    """Pads, shares, plain rows and their results."""
    share = ChunkBinding(NONCE, 1 << 40, HASH, HASH, Role.SHARE, 0, 2, 0, 300)
    rows = np.arange(6, dtype=np.uint32).reshape(2, 3)
    return [
        Linear(replace(share, role=Role.PAD), HASH),
        Linear(share, rows=rows),
        LinearResult(HASH, 1 << 20, rows),
        TrustedLinear(replace(share, role=Role.PLAIN), rows.astype(np.float32)),
        TrustedResult(HASH, 25, rows.astype(np.int32)),
    ]


def transfer_messages() -> list[Message]:
    """Questions for blobs, outlines of one piece and of two, slices."""
    outline = Outline(PIECE_BYTES + 3, (HASH, NONCE * 2))
    whole = Outline(9, (HASH,))
    return [
        BlobAsk(HASH),
        BlobOutline(outline.root, outline),
        BlobOutline(HASH, whole),
        PieceAsk(HASH, 3),
        PieceSlice(0, memoryview(b"weights")),
        Credit(1 << 30),
    ]


def span_messages() -> list[Message]:
    """A span from its opening to its end."""
    parts = (SpanRows(NONCE, 0, 2), SpanRows(bytes(16), 7, 8))
    rows = np.arange(9, dtype=np.float32).reshape(3, 3)
    onward = Onward(peer_id_of(HASH), SpanBinding(6, HASH, 4, 8, parts), HASH)
    return [
        SpanOpen(NONCE, HASH, 0, 4, 512, 512, HASH),
        SpanOpened(1 << 30),
        SpanStep(SpanBinding(5, HASH, 0, 4, parts), rows),
        SpanStep(SpanBinding(5, HASH, 0, 4, parts), rows, (onward, onward)),
        SpanPass(SpanBinding(5, HASH, 0, 4, parts), rows, (onward,), HASH),
        *_alone(),
        SpanResult(HASH, 31, rows),
        SpanResult(HASH, 31, rows, HASH, True),
        SpanClose(NONCE),
    ]


def _alone() -> list[Message]:
    """Steps of one sequence, which have a pattern."""
    parts, row = (SpanRows(NONCE, 300, 301),), np.ones((1, 5), np.float32)
    own, following = SpanBinding(1 << 40, HASH, 0, 30, parts), SpanBinding(1 << 41, HASH, 30, 60, parts)
    way = (Onward(peer_id_of(HASH), following, HASH),)
    return [SpanStep(own, row), SpanStep(own, row, way), SpanPass(own, row, (), HASH), SpanPass(own, row, way, HASH)]


def as_input(message: Message) -> bytes:
    """A message as an input of a target."""
    return join_frames([bytes(frame) for frame in encode_message(message, 1 << 33)])
