"""What is secret, or too long to read, is in no `repr`: neither alone, nor in a list, nor as rich prints it."""

from __future__ import annotations

from typing import Any

import pytest
from rich.pretty import pretty_repr

from node.audit.tap import Record, TappedSeed, TappedShare
from node.audit.truth import _Sent
from node.audit.views import Rows
from node.discovery.mdns import LanIdentity
from node.engine.request import Embedded, GenerationRequest, Token
from node.execution.chunk import ChunkRecord
from node.execution.direct import Ahead, Outcome
from node.execution.exchange import Prepared
from node.execution.owners import PadOwner, ShareOwner
from node.execution.pads.batch import PadBatch, PadTicket
from node.execution.pads.none import ZeroTicket
from node.execution.pads.pool import PadsReady
from node.execution.peer import Request, SessionPeer
from node.gateway.chat.asked import Asked
from node.gateway.chat.reply import CallArguments, CallBegins, Text, Thought
from node.gateway.http.access import AccessRules, Caller
from node.gateway.http.keys import Key
from node.kernels.layers import Passage
from node.measures.peers import PeerMeasures
from node.model.linear import Continuation, Wanted
from node.serving.native_shares import Visit
from node.serving.spans import _Held
from node.spans.steps import Step
from node.transfer.jobs import Job
from protocol.discreet import Discreet
from protocol.finding.invitation import Invitation
from protocol.identity import Identity
from protocol.linear.messages import Linear, LinearResult, TrustedLinear, TrustedResult
from protocol.linear.shares import PadSeeds
from protocol.linear.verification import UnitCheck
from protocol.link.admission import SwarmKey
from protocol.pairing.attempt import Attempt
from protocol.pairing.code import Meeting
from protocol.pairing.messages import PairAnswer, PairReveal
from protocol.spans.messages import SpanOpen, SpanPass, SpanResult, SpanStep
from protocol.spans.onward import Onward

HIDDEN: dict[type[Any], set[str]] = {
    LanIdentity: {"swarm_key"},
    Record: {"frames"},
    TappedShare: {"rows"},
    TappedSeed: {"seed"},
    _Sent: {"share", "pads"},
    Rows: {"elements"},
    GenerationRequest: {"prompt_ids"},
    Token: {"text", "likelihood"},
    Embedded: {"vector"},
    Text: {"text"},
    Thought: {"text"},
    CallBegins: {"name"},
    CallArguments: {"text"},
    ChunkRecord: {"share", "plain", "ticket", "result"},
    ShareOwner: {"move", "resend"},
    PadOwner: {"told"},
    Outcome: {"sums", "frames"},
    Ahead: {"rows", "pads", "share", "header"},
    Prepared: {"ticket", "request", "share", "header"},
    Request: {"inputs", "message"},
    Wanted: {"rows"},
    Continuation: {"rows"},
    Passage: {"run"},
    Visit: {"message", "unsent"},
    PadBatch: {"seed", "_pads", "products", "make"},
    PadTicket: {"pads", "batches"},
    PadsReady: {"seed", "products"},
    ZeroTicket: {"pads"},
    SessionPeer: {"session", "ids", "clock", "on_ban"},
    AccessRules: {"token"},
    Caller: {"token", "key"},
    Key: {"sha256"},
    Asked: {"messages", "prompts", "cache_key", "tools", "form", "template_values"},
    PeerMeasures: {"_lock", "_latency_s"},
    Job: {"stop", "ended", "_since"},
    Invitation: {"swarm_key"},
    Identity: {"signing_key"},
    Linear: {"seed", "rows"},
    LinearResult: {"rows"},
    TrustedLinear: {"rows"},
    SpanOpen: {"key"},
    SpanStep: {"rows"},
    SpanPass: {"rows", "seal"},
    Onward: {"seal"},
    _Held: {"key", "cache"},
    Step: {"rows", "arrived"},
    SpanResult: {"rows"},
    TrustedResult: {"sums"},
    PadSeeds: {"master", "model_id", "process"},
    UnitCheck: {"vectors", "projections", "_slices"},
    SwarmKey: {"secret"},
    Attempt: {"meeting", "outgoing", "_nonce"},
    Meeting: {"asker_nonce", "answerer_nonce"},
    PairAnswer: {"nonce"},
    PairReveal: {"nonce"},
}
SPEAKS_FOR_ITSELF = {Invitation, Identity, UnitCheck, SwarmKey}
"""Their `repr` computes with the fields: tested beside them."""


def made(kind: type[Any]) -> Any:
    """A value whose fields say their names, in 32 bytes each."""
    return kind(**{name: name.encode().rjust(32, b".") for name in kind.__struct_fields__})


@pytest.mark.parametrize("kind", HIDDEN)
def test_what_is_hidden_is_not_shown(kind: type[Any]) -> None:
    value, open_fields = made(kind), set(kind.__struct_fields__) - HIDDEN[kind]
    shown = [pretty_repr(value, max_width=10_000)]
    if kind not in SPEAKS_FOR_ITSELF:
        shown += [repr(value), f"{[value]}"]
    for text in shown:
        assert not [name for name in HIDDEN[kind] if f".{name}'" in text]
        assert all(f".{name}'" in text for name in open_fields if not name.startswith("_"))


def heirs(kind: type) -> set[type]:
    return {kind}.union(*(heirs(heir) for heir in kind.__subclasses__()))


def test_all_discreet_values_are_named_here() -> None:
    found = {kind for kind in heirs(Discreet) if kind.__module__.startswith(("node.", "protocol."))}
    assert found - {Discreet} == set(HIDDEN)


@pytest.mark.parametrize("kind", HIDDEN)
def test_what_is_hidden_is_a_field(kind: type[Any]) -> None:
    assert set(kind.HIDDEN) <= HIDDEN[kind] <= set(kind.__struct_fields__)
