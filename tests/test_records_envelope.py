"""Signed peer records: their exact bytes, and what must not pass for one."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from nacl.signing import VerifyKey

from protocol import cbor
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.identity import Identity
from protocol.membership.records import (
    MAX_PUBLISHED_MODELS,
    MAX_RECORD_BYTES,
    MAX_SEQ,
    RECORD_DOMAIN,
    RECORD_TYPE,
    Capabilities,
    HostedLayers,
    PeerFacts,
    PublishedModel,
    claimed_key,
    fitted,
    next_seq,
    open_record,
    sign_record,
)

ME = Identity.from_seed(bytes(range(32)))
OTHER = Identity.from_seed(bytes(range(1, 33)))
FACTS = PeerFacts(
    ("/ip4/127.0.0.1/tcp/4711", "/dns4/example.org/tcp/1"),
    "kekahyde/0.1",
    (1,),
    Capabilities((1,), 5 * 10**9, 1 << 33, 4712, (HostedLayers(bytes(32), ((0, 4), (9, 12))),)),
)
PAYLOAD_AT = 62
PUBLISHED_VECTOR = "a154fb52859554c9d67d0fa5c2c94a501b960190fd78ee8053841f113de4c4bb"


def framed(data: bytes) -> bytes:
    return (bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])) + data


def envelope_of(identity: Identity, payload: bytes, domain: bytes = RECORD_DOMAIN) -> bytes:
    """The construction of RFC 0002, written down a second time."""
    signature = identity.signing_key.sign(framed(domain) + framed(RECORD_TYPE) + framed(payload)).signature
    key = bytes.fromhex("08011220") + identity.public_key
    return (
        b"\x0a"
        + framed(key)
        + b"\x12"
        + framed(RECORD_TYPE)
        + b"\x1a"
        + framed(payload)
        + b"\x2a"
        + framed(signature)
    )


def payload_of(**changes: object) -> dict[int, object]:
    can = {0: [1], 1: 7, 2: 8, 3: 9, 4: []}
    plain: dict[int, object] = {0: ME.public_key, 1: 5, 2: [], 3: "a", 4: [1], 5: can, 6: False}
    return plain | {int(key[1:]): value for key, value in changes.items()}


def test_a_record_says_what_was_signed() -> None:
    record = sign_record(ME, FACTS, 77)
    again = open_record(record.envelope)
    assert again == record
    assert (again.facts, again.seq, again.left, again.peer_id) == (FACTS, 77, False, ME.peer_id)
    assert again.curve_key == ME.curve_public_key
    assert sign_record(ME, FACTS, 78, left=True).left


def test_a_record_names_layers_that_will_be_dropped() -> None:
    leaving = (HostedLayers(bytes(32), ((9, 12),)),)
    told = replace(FACTS, capabilities=replace(FACTS.capabilities, leaving=leaving))
    record = sign_record(ME, told, 77)
    assert open_record(record.envelope).facts.capabilities.leaving == leaving
    assert len(record.envelope) > len(sign_record(ME, FACTS, 77).envelope), "nothing is said where nothing leaves"


def test_the_envelope_is_that_of_libp2p() -> None:
    record = sign_record(ME, FACTS, 77)
    length = record.envelope[PAYLOAD_AT] & 127 | record.envelope[PAYLOAD_AT + 1] << 7
    payload = record.envelope[PAYLOAD_AT + 2 : PAYLOAD_AT + 2 + length]
    assert envelope_of(ME, payload) == record.envelope
    signed = framed(RECORD_DOMAIN) + framed(RECORD_TYPE) + framed(payload)
    VerifyKey(ME.public_key).verify(signed, record.envelope[-64:])


def test_short_and_long_payloads_have_one_length_each() -> None:
    short = envelope_of(ME, cbor.encode(payload_of()))
    assert len(short) - 130 < 128
    assert open_record(short).facts.agent == "a"
    longer = short[:PAYLOAD_AT] + bytes([short[PAYLOAD_AT] | 0x80, 0]) + short[PAYLOAD_AT + 1 :]
    with pytest.raises(RemoteProtocolError, match="disagree"):
        open_record(longer)


def test_unknown_fields_are_kept_and_ignored() -> None:
    envelope = envelope_of(ME, cbor.encode(payload_of(_99=[1, 2])))
    assert open_record(envelope).envelope == envelope


@pytest.mark.parametrize(
    "payload",
    [
        payload_of(_0=OTHER.public_key),
        payload_of(_0=b"short"),
        payload_of(_1=-1),
        payload_of(_1=MAX_SEQ + 1),
        payload_of(_1=True),
        payload_of(_2=["/ip4/1.2.3.4/tcp/1"] * 9),
        payload_of(_2=["a" * 257]),
        payload_of(_3="a" * 65),
        payload_of(_3="a\n"),
        payload_of(_4=[-1]),
        payload_of(_5=[]),
        payload_of(_5={0: [1], 1: -7, 2: 8, 3: 9, 4: []}),
        payload_of(_5={0: [1], 1: 7, 2: 8, 3: 65536, 4: []}),
        payload_of(_5={0: [1], 1: 7, 2: 8, 3: 9, 4: [], 6: [[bytes(32), [3, 2]]]}),
        payload_of(_5={0: [1], 1: 7, 2: 8, 3: 9, 4: [], 6: [[bytes(32), []]] * 9}),
        payload_of(_5={0: [1], 1: 7, 2: 8, 3: 9, 4: [[bytes(32), [3, 3]]]}),
        payload_of(_5={0: [1], 1: 7, 2: 8, 3: 9, 4: [[bytes(32), [3]]]}),
        payload_of(_5={0: [1], 1: 7, 2: 8, 3: 9, 4: [[bytes(31), [3, 4]]]}),
        payload_of(_5={0: [1], 1: 7, 2: 8, 3: 9, 4: [7]}),
        payload_of(_6=1),
        [],
        {"a": 1},
        payload_of(_99=bytes(1024)),
    ],
)
def test_a_payload_that_is_none(payload: object) -> None:
    with pytest.raises(RemoteProtocolError):
        open_record(envelope_of(ME, cbor.encode(payload)))


def test_a_payload_is_deterministic_cbor() -> None:
    with pytest.raises(RemoteProtocolError):
        open_record(envelope_of(ME, cbor.encode(payload_of()) + b"\0"))


def test_a_signature_of_another_domain_or_key_is_none() -> None:
    payload = cbor.encode(payload_of())
    with pytest.raises(RemoteProtocolError, match="verify"):
        open_record(envelope_of(ME, payload, domain=b"kek-other"))
    stolen = bytearray(envelope_of(OTHER, payload))
    stolen[6:38] = ME.public_key
    with pytest.raises(RemoteProtocolError, match="verify"):
        open_record(bytes(stolen))


def test_the_signature_is_verified_before_the_payload_is_read() -> None:
    envelope = bytearray(envelope_of(ME, b"\xff not cbor"))
    with pytest.raises(RemoteProtocolError, match="CBOR"):
        open_record(bytes(envelope))
    envelope[-1] ^= 1
    with pytest.raises(RemoteProtocolError, match="verify"):
        open_record(bytes(envelope))


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_bit_can_be_altered(position: int, flip: int) -> None:
    envelope = bytearray(sign_record(ME, FACTS, 1).envelope)
    envelope[position % len(envelope)] ^= flip
    with pytest.raises(RemoteProtocolError):
        open_record(bytes(envelope))


@given(st.binary(max_size=300), st.integers(0, 200))
def test_garbage_is_refused_as_the_senders_fault(tail: bytes, kept: int) -> None:
    envelope = sign_record(ME, FACTS, 1).envelope[:kept] + tail
    for read in (open_record, claimed_key):
        try:
            read(envelope)
        except RemoteProtocolError:
            continue
        assert read is claimed_key


def test_a_record_too_large_is_not_read() -> None:
    with pytest.raises(RemoteProtocolError):
        claimed_key(sign_record(ME, FACTS, 1).envelope + bytes(MAX_RECORD_BYTES))


def test_facts_that_do_not_fit_are_not_signed() -> None:
    long = tuple(f"/dns4/{'a' * 60}.{'b' * 60}.{number}.org/tcp/1" for number in range(8))
    with pytest.raises(LocalProtocolError, match="fewer"):
        sign_record(ME, replace(FACTS, addrs=long), 1)
    with pytest.raises(LocalProtocolError, match="cannot say"):
        sign_record(ME, replace(FACTS, agent="a" * 65), 1)
    with pytest.raises(LocalProtocolError):
        sign_record(ME, FACTS, MAX_SEQ + 1)


def test_published_models_come_back_and_their_bytes_stay() -> None:
    shown = tuple(PublishedModel(bytes([number]) * 32, f"model-{number}") for number in range(MAX_PUBLISHED_MODELS))
    facts = replace(FACTS, capabilities=replace(FACTS.capabilities, published=shown))
    record = sign_record(ME, facts, 1800000000000)
    assert record.facts == facts and open_record(record.envelope) == record
    assert hashlib.sha256(record.envelope).hexdigest() == PUBLISHED_VECTOR
    too_many = (*shown, shown[0])
    with pytest.raises(LocalProtocolError):
        sign_record(ME, replace(facts, capabilities=replace(FACTS.capabilities, published=too_many)), 1)


@pytest.mark.parametrize(
    "published", [[[bytes(31), "a"]], [[bytes(32)]], [[bytes(32), "a\x1b[31m"]], [[bytes(32), "a" * 33]], 7]
)
def test_published_models_of_another_form_are_refused(published: object) -> None:
    payload = cbor.encode(payload_of(_5={0: [1], 1: 7, 2: 8, 3: 9, 4: [], 7: published}))
    with pytest.raises(RemoteProtocolError):
        open_record(envelope_of(ME, payload))


def test_the_facts_of_a_busy_node_are_cut_until_they_fit() -> None:
    """Eight long addresses and eight models do not fit into one record: the node says less, and goes on."""
    long = tuple(f"/dns4/{'a' * 60}.{'b' * 60}.{number}.org/tcp/1" for number in range(8))
    hosted = tuple(HostedLayers(bytes([number]) * 32, ((0, 4), (9, 12))) for number in range(8))
    shown = tuple(PublishedModel(bytes([number]) * 32, "\u2603" * 32) for number in range(MAX_PUBLISHED_MODELS))
    busy = replace(FACTS, addrs=long, capabilities=replace(FACTS.capabilities, hosted=hosted, published=shown))
    kept = sign_record(ME, fitted(busy), 1).facts
    assert kept.addrs and kept.addrs == long[: len(kept.addrs)] and kept.capabilities.hosted == hosted
    with_names = replace(busy, addrs=long[:2], capabilities=replace(busy.capabilities, hosted=()))
    assert sign_record(ME, fitted(with_names), 1).facts.capabilities.published == shown
    assert fitted(FACTS) == FACTS


def test_addresses_that_lead_elsewhere_or_nowhere_are_left_out() -> None:
    good = "/ip4/1.2.3.4/tcp/1"
    mine, theirs = f"{good}/p2p/{ME.peer_id}", f"{good}/p2p/{OTHER.peer_id}"
    record = sign_record(ME, replace(FACTS, addrs=(good, "/quic/later", theirs, mine)), 1)
    assert record.facts.addrs == (good, mine)


def test_seq_grows_with_the_clock_and_without_it() -> None:
    assert next_seq(0, 1_800_000_000_000) == 1_800_000_000_000
    assert next_seq(1_900_000_000_000, 1_800_000_000_000) == 1_900_000_000_001


def test_a_record_prints_without_its_bytes() -> None:
    assert repr(sign_record(ME, FACTS, 3, left=True)) == f"PeerRecord({ME.peer_id}, seq=3, left)"
