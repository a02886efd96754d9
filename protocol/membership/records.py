"""Peer records: what a node says about itself, signed by itself, so that anybody can pass it on unaltered.

The bytes are libp2p's signed envelope (RFC 0002, RFC 0003): a protobuf of key, payload type, payload and signature,
signed over the length-prefixed domain, payload type and payload. The payload is deterministic CBOR. A signature is
verified before the payload is parsed, and records are passed on as the bytes that came, never encoded again.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from protocol import cbor
from protocol.errors import AddressError, LocalProtocolError, RemoteProtocolError
from protocol.fields import take_bytes, take_integer, take_integers, take_list, take_text, take_texts
from protocol.identity import Identity, PeerId, curve_public_key_of, peer_id_of, verify_signature
from protocol.limits import HASH_BYTES, MAX_ADDRESSES, MAX_AGENT_CHARACTERS, MAX_HOSTED_MODELS, OPERATOR_BYTES
from protocol.multiaddr import MAX_ADDRESS_CHARACTERS, parse_multiaddr

# SPEC.md, section on peer records.
RECORD_DOMAIN = b"kek-peer-record"
RECORD_TYPE = b"/kekahyde/peer-record"
MAX_RECORD_PAYLOAD_BYTES = 1024
MAX_RECORD_BYTES = 1200
"""Of the whole envelope: the payload and 130 bytes around it, rounded up."""
MAX_SEQ = (1 << 63) - 1
MAX_VERSIONS = 16
MAX_WORK_KINDS = 16
MAX_LAYER_RANGES = 16
MAX_LAYERS = 4096
MAX_PUBLISHED_MODELS = 4
MAX_PUBLISHED_NAME_CHARACTERS = 32
MAX_QUANTITY = (1 << 63) - 1

KEY_BYTES = 32
SIGNATURE_BYTES = 64
# Protobuf: field 1, 36 bytes, PublicKey{Type = Ed25519, Data}; then fields 2 (type), 3 (payload), 5 (signature).
_KEY_PREFIX = bytes.fromhex("0a2408011220")
_TYPE_FIELD = b"\x12" + bytes([len(RECORD_TYPE)]) + RECORD_TYPE
_PAYLOAD_TAG = b"\x1a"
_SIGNATURE_PREFIX = bytes([0x2A, SIGNATURE_BYTES])
_PAYLOAD_AT = len(_KEY_PREFIX) + KEY_BYTES + len(_TYPE_FIELD) + 1


class HostedLayers(Struct, frozen=True):
    """Which layers of a model a node holds. The LM head counts as the layer after the last."""

    model_id: bytes
    ranges: tuple[tuple[int, int], ...]
    """Half-open."""


class PublishedModel(Struct, frozen=True):
    """A model that a node asks its swarm to hold."""

    model_id: bytes
    name: str
    """What the node calls it, for people alone."""


class Capabilities(Struct, frozen=True):
    """What a node can do for others."""

    work: tuple[int, ...] = ()
    """Kinds of work, `messages.WorkKind`."""
    macs_per_s: int = 0
    memory_bytes: int = 0
    """Memory that it lends to weights."""
    data_port: int = 0
    """TCP port of the data plane at the same host; 0 where nobody can dial in."""
    hosted: tuple[HostedLayers, ...] = ()
    operator: bytes = bytes(OPERATOR_BYTES)
    """As in a hello: which devices one person runs. Zero: not said."""
    leaving: tuple[HostedLayers, ...] = ()
    """Of `hosted`, the layers that the node will drop: it serves them until others have taken them over."""
    published: tuple[PublishedModel, ...] = ()
    """Of `hosted`, the models that the swarm is asked to hold."""


class PeerFacts(Struct, frozen=True):
    """What the owner of a record says of itself."""

    addrs: tuple[str, ...] = ()
    """Addresses of the control plane; a reader leaves out those it cannot use."""
    agent: str = ""
    versions: tuple[int, ...] = ()
    capabilities: Capabilities = Capabilities()


class PeerRecord(Struct, frozen=True):
    """A verified record with the bytes it came as."""

    public_key: bytes
    peer_id: PeerId
    curve_key: bytes
    seq: int
    """Increases with every record of its owner: it is the incarnation number too."""
    facts: PeerFacts
    left: bool
    """The owner says goodbye; final until a record with a higher seq."""
    envelope: bytes
    digest: bytes
    """SHA-256 of the envelope."""

    def __repr__(self) -> str:
        return f"PeerRecord({self.peer_id}, seq={self.seq}{', left' if self.left else ''})"


def next_seq(stored: int, unix_ms: int) -> int:
    """Sequence number of a new record: above every earlier one, and of use even where the stored one was lost."""
    return max(stored + 1, unix_ms)


def sign_record(identity: Identity, facts: PeerFacts, seq: int, left: bool = False) -> PeerRecord:
    """A node's own record. Raises LocalProtocolError where the facts do not fit into one."""
    payload = cbor.encode(_payload_of(identity.public_key, facts, seq, left))
    if len(payload) > MAX_RECORD_PAYLOAD_BYTES or not 0 <= seq <= MAX_SEQ:
        raise LocalProtocolError(
            f"a peer record of {len(payload)} bytes with seq {seq}: at most {MAX_RECORD_PAYLOAD_BYTES} bytes and "
            f"seq {MAX_SEQ}; name fewer addresses or layer ranges"
        )
    signature = identity.sign(RECORD_DOMAIN, _signed_part(payload))
    envelope = b"".join(
        (_KEY_PREFIX, identity.public_key, _TYPE_FIELD, _PAYLOAD_TAG, _uvarint(len(payload)), payload)
    )
    try:
        return open_record(envelope + _SIGNATURE_PREFIX + signature)
    except RemoteProtocolError as exc:
        raise LocalProtocolError(f"a peer record cannot say this: {exc}") from exc


def fitted(facts: PeerFacts) -> PeerFacts:
    """As much of the facts as one record holds: the last addresses go first, but for one, then names of models."""

    def size(shorter: PeerFacts) -> int:
        return len(cbor.encode(_payload_of(bytes(KEY_BYTES), shorter, MAX_SEQ, True)))

    while len(facts.addrs) > 1 and size(facts) > MAX_RECORD_PAYLOAD_BYTES:
        facts = replace(facts, addrs=facts.addrs[:-1])
    can = facts.capabilities
    if size(facts) > MAX_RECORD_PAYLOAD_BYTES:
        nameless = tuple(replace(model, name="") for model in can.published)
        facts = replace(facts, capabilities=replace(can, published=nameless))
    return facts


def open_record(envelope: bytes) -> PeerRecord:
    """Verify and read an envelope; raises RemoteProtocolError naming the first rule it breaks."""
    public_key, payload, signature = _split(envelope)
    verify_signature(public_key, RECORD_DOMAIN, _signed_part(payload), signature)
    curve_key = curve_public_key_of(public_key)
    fields = cbor.decode(payload, MAX_RECORD_PAYLOAD_BYTES)
    if not isinstance(fields, dict) or not all(type(key) is int for key in fields):
        raise RemoteProtocolError("a peer record is not a map with integer keys")
    if take_bytes(fields, 0, KEY_BYTES) != public_key:
        raise RemoteProtocolError("a peer record names another peer than its signer")
    left = fields.get(6, False)
    if type(left) is not bool:
        raise RemoteProtocolError("field 6 of a peer record is not a boolean")
    peer_id = peer_id_of(public_key)
    facts = PeerFacts(
        addrs=_usable(take_texts(fields, 2, MAX_ADDRESSES, MAX_ADDRESS_CHARACTERS), peer_id),
        agent=take_text(fields, 3, MAX_AGENT_CHARACTERS),
        versions=take_integers(fields, 4, MAX_VERSIONS, 0, 65535),
        capabilities=_read_capabilities(fields.get(5)),
    )
    seq = take_integer(fields, 1, 0, MAX_SEQ)
    digest = hashlib.sha256(envelope).digest()
    return PeerRecord(public_key, peer_id, curve_key, seq, facts, left, bytes(envelope), digest)


def claimed_key(envelope: bytes) -> bytes:
    """The key that an envelope says it is signed with. Good for looking up whether these bytes are known already;
    nothing else may be believed before `open_record`."""
    if len(envelope) > MAX_RECORD_BYTES or len(envelope) < _PAYLOAD_AT or not envelope.startswith(_KEY_PREFIX):
        raise RemoteProtocolError("not a peer record")
    return envelope[len(_KEY_PREFIX) : len(_KEY_PREFIX) + KEY_BYTES]


def _split(envelope: bytes) -> tuple[bytes, bytes, bytes]:
    public_key = claimed_key(envelope)
    type_at = len(_KEY_PREFIX) + KEY_BYTES
    if envelope[type_at:_PAYLOAD_AT] != _TYPE_FIELD + _PAYLOAD_TAG:
        raise RemoteProtocolError("an envelope of another payload type")
    signature_at = len(envelope) - SIGNATURE_BYTES
    tail = signature_at - len(_SIGNATURE_PREFIX)
    for length_bytes in (1, 2):  # a payload of at most 1024 bytes; one form of the length only
        payload = envelope[_PAYLOAD_AT + length_bytes : max(tail, 0)]
        if envelope[_PAYLOAD_AT : _PAYLOAD_AT + length_bytes] == _uvarint(len(payload)):
            if len(payload) <= MAX_RECORD_PAYLOAD_BYTES and envelope[tail:signature_at] == _SIGNATURE_PREFIX:
                return public_key, payload, envelope[signature_at:]
            break
    raise RemoteProtocolError("an envelope whose fields and sizes disagree")


def _signed_part(payload: bytes) -> bytes:
    """What follows the length-prefixed domain, which `identity.signed_bytes` puts before it."""
    return _uvarint(len(RECORD_TYPE)) + RECORD_TYPE + _uvarint(len(payload)) + payload


def _uvarint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _payload_of(public_key: bytes, facts: PeerFacts, seq: int, left: bool) -> dict[int, Any]:
    can = facts.capabilities
    capabilities: dict[int, Any] = {
        0: list(can.work),
        1: can.macs_per_s,
        2: can.memory_bytes,
        3: can.data_port,
        4: [_hosted_entry(model) for model in can.hosted],
    }
    if any(can.operator):
        capabilities[5] = can.operator
    if can.leaving:
        capabilities[6] = [_hosted_entry(model) for model in can.leaving]
    if can.published:
        capabilities[7] = [[model.model_id, model.name] for model in can.published]
    payload: dict[int, Any] = {0: public_key, 1: seq, 2: list(facts.addrs), 3: facts.agent}
    return payload | {4: list(facts.versions), 5: capabilities, 6: left}


def _hosted_entry(model: HostedLayers) -> list[Any]:
    return [model.model_id, [edge for span in model.ranges for edge in span]]


def _read_capabilities(fields: Any) -> Capabilities:
    if not isinstance(fields, dict) or not all(type(key) is int for key in fields):
        raise RemoteProtocolError("the capabilities of a peer record are not a map with integer keys")
    return Capabilities(
        work=take_integers(fields, 0, MAX_WORK_KINDS, 0, 65535),
        macs_per_s=take_integer(fields, 1, 0, MAX_QUANTITY),
        memory_bytes=take_integer(fields, 2, 0, MAX_QUANTITY),
        data_port=take_integer(fields, 3, 0, 65535),
        hosted=_read_hosted_models(fields, 4),
        operator=bytes(OPERATOR_BYTES) if 5 not in fields else take_bytes(fields, 5, OPERATOR_BYTES),
        leaving=() if 6 not in fields else _read_hosted_models(fields, 6),
        published=() if 7 not in fields else _read_published(fields),
    )


def _read_hosted_models(fields: dict[int, Any], key: int) -> tuple[HostedLayers, ...]:
    return tuple(_read_hosted(entry) for entry in take_list(fields, key, MAX_HOSTED_MODELS))


def _read_hosted(entry: Any) -> HostedLayers:
    if not isinstance(entry, list) or len(entry) != 2:
        raise RemoteProtocolError("a hosted model of a peer record is [model id, [start, end, ...]]")
    fields = dict(enumerate(entry))
    edges = take_integers(fields, 1, 2 * MAX_LAYER_RANGES, 0, MAX_LAYERS)
    if len(edges) % 2 or any(later <= earlier for earlier, later in pairwise(edges)):
        raise RemoteProtocolError("layer ranges of a peer record do not increase")
    return HostedLayers(take_bytes(fields, 0, HASH_BYTES), tuple(zip(edges[::2], edges[1::2], strict=True)))


def _read_published(fields: dict[int, Any]) -> tuple[PublishedModel, ...]:
    models = []
    for entry in take_list(fields, 7, MAX_PUBLISHED_MODELS):
        if not isinstance(entry, list) or len(entry) != 2:
            raise RemoteProtocolError("a published model of a peer record is [model id, name]")
        told = dict(enumerate(entry))
        name = take_text(told, 1, MAX_PUBLISHED_NAME_CHARACTERS)
        if not name.isprintable():
            raise RemoteProtocolError("the name of a published model has characters that cannot be printed")
        models.append(PublishedModel(take_bytes(told, 0, HASH_BYTES), name))
    return tuple(models)


def _usable(addrs: tuple[str, ...], peer_id: PeerId) -> tuple[str, ...]:
    return tuple(text for text in addrs if _is_usable(text, peer_id))


def _is_usable(text: str, peer_id: PeerId) -> bool:
    """Whether this version can dial the address; one with another PeerID in it would send us to somebody else."""
    try:
        return parse_multiaddr(text).peer_id in (None, peer_id)
    except AddressError:
        return False
