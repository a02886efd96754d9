"""The first message of a link, each way, and its form on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, ClassVar, Self

from msgspec import Struct

from protocol.errors import RemoteProtocolError
from protocol.fields import take_bytes, take_integer, take_integers, take_list, take_text, take_texts
from protocol.limits import (
    HASH_BYTES,
    MAX_ADDRESSES,
    MAX_AGENT_CHARACTERS,
    MAX_HOST_CHARACTERS,
    MAX_HOSTED_MODELS,
    MAX_HOSTED_UNITS,
    MAX_NAME_CHARACTERS,
    NONCE_BYTES,
    OPERATOR_BYTES,
    PROOF_BYTES,
)
from protocol.message import BodyMessage, MessageType


class WorkKind(IntEnum):
    """Kinds of work a node offers."""

    LINEAR = 1
    SPAN = 2
    """Spans, with the floats of SPEC.md section 21: the same bits on every machine."""


class HostedModel(Struct, frozen=True):
    """Units of one model that a node holds, by hash."""

    model_id: bytes
    units: tuple[bytes, ...]


class Hello(BodyMessage, frozen=True):
    """First message of a link, each way: who I am, what I speak, what I can do."""

    TYPE: ClassVar[MessageType] = MessageType.HELLO
    public_key: bytes
    versions: tuple[int, ...]
    agent: str
    addrs: tuple[str, ...]
    data_port: int
    """TCP port of the data plane at the same host; 0 where nobody can dial in."""
    hosted: tuple[HostedModel, ...]
    macs_per_s: int
    """Measured speed on field elements, multiply-accumulates a second."""
    work: tuple[int, ...]
    nonce: bytes
    proof: bytes | None = None
    """Proof that the sender knows the key of its swarm (`protocol.link.admission`); None in an open swarm."""
    observed: str = ""
    """Host at which the sender sees the receiver; empty where it does not know."""
    operator: bytes = bytes(OPERATOR_BYTES)
    """Devices that share one are run by one person. A claim: it separates peers in the choice of guards and vouches
    for nothing. Zero: not said."""
    clock_ms: int = 0
    """Unix time at the sender, so that people can find a wrong clock; no decision depends on it. Zero: not said."""

    name: str = ""
    """The device's name for people. A claim: nothing is decided by it. Empty: not said."""

    def to_body(self) -> dict[int, Any]:
        body: dict[int, Any] = {
            0: self.public_key,
            1: list(self.versions),
            2: self.agent,
            3: list(self.addrs),
            4: self.data_port,
            5: [[model.model_id, list(model.units)] for model in self.hosted],
            6: self.macs_per_s,
            7: list(self.work),
            8: self.nonce,
        }
        if self.proof is not None:
            body[9] = self.proof
        body |= {10: self.observed, 11: self.operator, 12: self.clock_ms}
        return body | {13: self.name} if self.name else body

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls(
            public_key=take_bytes(body, 0, 32),
            versions=take_integers(body, 1, 16, 0, 65535),
            agent=take_text(body, 2, MAX_AGENT_CHARACTERS),
            addrs=take_texts(body, 3, MAX_ADDRESSES, 256),
            data_port=take_integer(body, 4, 0, 65535),
            hosted=tuple(_read_hosted(entry) for entry in take_list(body, 5, MAX_HOSTED_MODELS)),
            macs_per_s=take_integer(body, 6, 0, 1 << 62),
            work=take_integers(body, 7, 16, 0, 65535),
            nonce=take_bytes(body, 8, NONCE_BYTES),
            proof=None if 9 not in body else take_bytes(body, 9, PROOF_BYTES),
            observed="" if 10 not in body else take_text(body, 10, MAX_HOST_CHARACTERS),
            operator=bytes(OPERATOR_BYTES) if 11 not in body else take_bytes(body, 11, OPERATOR_BYTES),
            clock_ms=0 if 12 not in body else take_integer(body, 12, 0, 1 << 62),
            name="" if 13 not in body else take_text(body, 13, MAX_NAME_CHARACTERS),
        )


class HelloOk(Hello, frozen=True):
    """Answer to a hello: the same facts about the answering side."""

    TYPE: ClassVar[MessageType] = MessageType.HELLO_OK


def hello_ok(hello: Hello) -> HelloOk:
    """A HELLO_OK with the facts of `hello`."""
    return HelloOk(**{name: getattr(hello, name) for name in Hello.__struct_fields__})


def _read_hosted(entry: Any) -> HostedModel:
    if not isinstance(entry, list) or len(entry) != 2:
        raise RemoteProtocolError("a hosted model is [model id, [unit hashes]]")
    parts = {0: entry[0], 1: entry[1]}
    units = take_list(parts, 1, MAX_HOSTED_UNITS)
    hashes = tuple(take_bytes({0: unit}, 0, HASH_BYTES) for unit in units)
    return HostedModel(take_bytes(parts, 0, HASH_BYTES), hashes)
