"""SPEC.md is normative: its vectors, tables and CDDL are read out of it and the implementation is held to them."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pycddl
import pytest

from node.kernels import select_kernels
from protocol import cbor
from protocol.codec import decode_message, encode_message
from protocol.finding.dialback import DialBack, DialBackResult, DialBackStatus
from protocol.finding.invitation import InvitedModel, format_invitation, parse_invitation
from protocol.identity import Identity, peer_id_of, public_key_of
from protocol.limits import MAX_DATA_HEADER_BYTES, PIECE_BYTES
from protocol.linear.messages import ChunkBinding, LinearResult, Role, TrustedLinear, TrustedResult
from protocol.linear.shares import pad_row, pad_rows
from protocol.linear.verification import result_digest
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
from scripts.documents import spec_tables, spec_vectors

SPEC = (Path(__file__).parent.parent / "SPEC.md").read_text()


def block(fence: str) -> str:
    """Content of the one fenced block that begins with ```fence."""
    found = re.findall(rf"```{fence}\n(.*?)```", SPEC, re.DOTALL)
    assert len(found) == 1, f"SPEC.md has {len(found)} blocks ```{fence}"
    return str(found[0])


@pytest.fixture(scope="module")
def vectors() -> dict[str, Any]:
    return dict(json.loads(block("json vectors")))


PARTS = [
    *("identity", "seeds", "pads", "linear", "trusted", "pairing"),
    *("swarm", "buckets", "outline", "digest", "messages"),
]


@pytest.mark.parametrize("part", PARTS)
def test_vectors_are_what_this_implementation_gives(vectors: dict[str, Any], part: str) -> None:
    assert spec_vectors.vectors()[part] == vectors[part]


def test_identity_follows_from_its_seed(vectors: dict[str, Any]) -> None:
    stated = vectors["identity"]
    identity = Identity.from_seed(bytes.fromhex(stated["seed"]))
    assert public_key_of(stated["peer_id"]).hex() == stated["public_key"]
    assert identity.sign(b"test", b"hello").hex() == stated["signature_of_hello_in_domain_test"]


def test_the_rejected_word_is_skipped(vectors: dict[str, Any]) -> None:
    stated = vectors["pads"]
    seed, index = bytes.fromhex(stated["rejection_seed"]), stated["rejection_index"]
    elements = pad_row(seed, index + 2)
    assert elements[-4:].tolist() == stated["elements_from_two_before"]
    assert pad_row(seed, index + 1)[-1] == elements[index], "a longer row has the shorter one as its beginning"


def test_the_compiled_kernels_give_the_vector_too(vectors: dict[str, Any]) -> None:
    stated, kernels = vectors["linear"], select_kernels()
    weights = np.array(stated["weights"], dtype=np.int8)
    rows = np.array(stated["rows"], dtype=np.int16)
    pads = pad_rows(bytes.fromhex(stated["seed"]), 0, len(rows), rows.shape[1])
    share = kernels.share(rows, pads)
    assert share.tolist() == stated["share"]
    result, products = kernels.linear_field(weights, share), kernels.linear_field(weights, pads)
    assert (result.tolist(), products.tolist()) == (stated["share_result"], stated["pad_products"])
    assert kernels.merge(result, products).tolist() == stated["sums"]
    assert np.array_equal(kernels.linear_a12(weights, rows), rows.astype(np.int32) @ weights.T.astype(np.int32))


def test_messages_are_read_from_their_bytes(vectors: dict[str, Any]) -> None:
    frames = {name: [bytes.fromhex(frame) for frame in hexes] for name, hexes in vectors["messages"].items()}
    read = {name: decode_message(encoded, MAX_DATA_HEADER_BYTES) for name, encoded in frames.items()}
    result, share = read["linear_result"].message, read["linear_share"].message
    assert isinstance(result, LinearResult)
    assert result_digest(share.binding, result.rows) == result.digest  # type: ignore[union-attr]
    for name, received in read.items():
        assert [bytes(frame) for frame in encode_message(received.message, received.id)] == frames[name]


def test_tables_are_those_of_the_code() -> None:
    tables = (spec_tables.handshake_table(), spec_tables.chunk_table(), spec_tables.limits_table())
    for rows in (*tables, spec_tables.pairing_table(), spec_tables.gateway_table()):
        assert "\n".join(rows) in SPEC


HELLO = {
    "public_key": bytes(32),
    "versions": (1,),
    "agent": "kekahyde/0",
    "addrs": ("/ip4/127.0.0.1/tcp/1",),
    "data_port": 5,
    "hosted": (HostedModel(bytes(32), (bytes(32),)),),
    "macs_per_s": 10**10,
    "work": (1,),
    "nonce": bytes(16),
    "proof": bytes(32),
    "observed": "127.0.0.1",
    "name": "anna",
}
CLAIM = Claim(bytes(32), 1, State.DEAD, bytes(32))
STEP = SpanBinding(1, bytes(32), 0, 2, (SpanRows(bytes(16), 0, 1), SpanRows(bytes([1]) * 16, 5, 7)))
ONWARD = Onward(peer_id_of(bytes(32)), STEP, bytes(32))
MESSAGES: dict[str, Message] = {
    "hello": Hello(**HELLO),  # type: ignore[arg-type]
    "hello-ok": HelloOk(**HELLO),  # type: ignore[arg-type]
    "ping": Ping(),
    "pong": Pong(3),
    "error": ErrorReply(100, "say hello first"),
    "cancel": Cancel(9),
    "goaway": GoAway("bye"),
    "attach": Attach(),
    "pair-ask": PairAsk(bytes(16), bytes(32)),
    "pair-answer": PairAnswer(bytes(16), bytes(32)),
    "pair-reveal": PairReveal(bytes(16), bytes(32)),
    "pair-confirm": PairConfirm(bytes(16), bytes(64), bytes(16), True),
    "pair-refuse": PairRefuse(bytes(16), PairRefusal.BUSY),
    "unpair": Unpair(bytes(32), False),
    "trusted-linear": TrustedLinear(
        ChunkBinding(bytes(16), 1, bytes(32), bytes(32), Role.PLAIN, 0, 1, 0, 1), np.zeros((1, 2), np.float32)
    ),
    "trusted-result": TrustedResult(bytes(32), 1, np.zeros((1, 2), np.int32)),
    "span-open": SpanOpen(bytes(16), bytes(32), 0, 2, 100, 50, bytes(32)),
    "span-opened": SpanOpened(900),
    "span-step": SpanStep(STEP, np.zeros((3, 2), np.float32), (ONWARD, ONWARD)),
    "span-pass": SpanPass(STEP, np.zeros((3, 2), np.float32), (ONWARD,), bytes(32)),
    "span-result": SpanResult(bytes(32), 1, np.zeros((3, 2), np.float32), bytes(32), True),
    "span-close": SpanClose(bytes(16)),
    "blob-ask": BlobAsk(bytes(32)),
    "blob-outline": BlobOutline(bytes(32), Outline(PIECE_BYTES + 1, (bytes(32), bytes(32)))),
    "piece-ask": PieceAsk(bytes(32), 7),
    "piece-slice": PieceSlice(0, memoryview(b"piece")),
    "credit": Credit(4 * PIECE_BYTES),
    "ping-req": PingReq(bytes(32), 1),
    "ping-result": PingResult(bytes(32), 1, True),
    "gossip": Gossip((b"record",), (CLAIM,)),
    "dial-back": DialBack("/ip4/192.168.7.20/tcp/4711", bytes(16)),
    "dial-back-result": DialBackResult(bytes(16), DialBackStatus.REACHED),
    "sync": Sync(bytes(32), b"record"),
    "sync-ok": SyncOk(
        Digest(bytes(32), None, (DigestEntry(bytes(32), 1, bytes(8)),)), (b"record",), (CLAIM,), (bytes(32),)
    ),
}


@pytest.mark.parametrize("rule", [*MESSAGES, "linear-pad", "linear-share", "linear-result"])
def test_bodies_match_the_cddl(vectors: dict[str, Any], rule: str) -> None:
    if rule in MESSAGES:
        header = bytes(encode_message(MESSAGES[rule], 1)[0])
    else:
        header = bytes.fromhex(vectors["messages"][rule.replace("-", "_")][0])
    body = cbor.decode(header[4:], len(header))[4]
    grammar = block("cddl")
    pycddl.Schema(f"start = {rule}\n{grammar}").validate_cbor(cbor.encode(body))
    with pytest.raises(pycddl.ValidationError):
        pycddl.Schema(f"start = {rule}\n{grammar}").validate_cbor(cbor.encode({**body, 0: 1.5} if body else [body]))


def test_the_invitation_of_the_text_is_read() -> None:
    [line] = re.findall(r"^    (kekahyde:1:\S+)$", SPEC, re.MULTILINE)
    invitation = parse_invitation(line, 0)
    seed = bytes(range(32))
    [address] = invitation.addresses
    assert str(address) == f"/ip4/192.168.7.20/tcp/4711/p2p/{Identity.from_seed(seed).peer_id}"
    assert (invitation.swarm_key, invitation.expires_unix_s) == (seed, 1800000000)
    assert invitation.models == (InvitedModel(seed, "story"),)
    assert format_invitation(invitation) == line
    padded = line.split(":")[2] + "=" * (-len(line.split(":")[2]) % 4)
    body = base64.urlsafe_b64decode(padded)[:-8]
    pycddl.Schema(f"start = invitation\n{block('cddl')}").validate_cbor(body)
