"""PeerIDs and addresses as libp2p writes them, and what must not pass for one."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import AddressError, RemoteProtocolError
from protocol.identity import (
    BASE58_ALPHABET,
    PEER_ID_PREFIX,
    Identity,
    base58_decode,
    base58_encode,
    curve_public_key_of,
    peer_id_of,
    public_key_of,
    signed_bytes,
    verify_signature,
)
from protocol.multiaddr import Multiaddr, parse_multiaddr

# libp2p specs, peer-ids.md.
SPEC_KEY = bytes.fromhex("1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e")
SPEC_PEER_ID = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
ME = Identity.from_seed(bytes(range(32)))

# draft-ietf-lake-edhoc and libsodium's own list: points of order 1, 2, 4 and 8, some in several encodings.
LOW_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]
OFF_CURVE = "0200000000000000000000000000000000000000000000000000000000000000"


def test_the_vector_of_libp2p() -> None:
    assert peer_id_of(SPEC_KEY) == SPEC_PEER_ID
    assert public_key_of(SPEC_PEER_ID) == SPEC_KEY


@given(st.binary(min_size=32, max_size=32))
def test_a_peer_id_holds_its_key(key: bytes) -> None:
    assert public_key_of(peer_id_of(key)) == key


@given(st.binary(max_size=48))
def test_base58_keeps_every_byte(data: bytes) -> None:
    assert base58_decode(base58_encode(data)) == data


@given(st.text(max_size=80))
def test_any_text_is_a_peer_id_or_a_remote_error(text: str) -> None:
    try:
        key = public_key_of(text)
    except RemoteProtocolError:
        return
    assert peer_id_of(key) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        SPEC_PEER_ID[:-1],
        SPEC_PEER_ID + "1",
        "1" + SPEC_PEER_ID,
        SPEC_PEER_ID.replace("K", "l", 1),
        SPEC_PEER_ID + "\n",
        "Qm" + SPEC_PEER_ID[2:],
        "1" * 65,
        base58_encode(PEER_ID_PREFIX[:-1] + b"\x21" + SPEC_KEY),
        base58_encode(PEER_ID_PREFIX + SPEC_KEY + b"\0"),
    ],
)
def test_what_is_no_peer_id(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        public_key_of(text)


def test_every_single_changed_character_is_another_key_or_none() -> None:
    for index in range(len(SPEC_PEER_ID)):
        for character in BASE58_ALPHABET:
            changed = SPEC_PEER_ID[:index] + character + SPEC_PEER_ID[index + 1 :]
            if changed == SPEC_PEER_ID:
                continue
            with contextlib.suppress(RemoteProtocolError):
                assert public_key_of(changed) != SPEC_KEY


@pytest.mark.parametrize("text", [*LOW_ORDER, OFF_CURVE])
def test_keys_without_a_usable_curve_key_are_refused(text: str) -> None:
    key = bytes.fromhex(text)
    with pytest.raises(RemoteProtocolError):
        curve_public_key_of(key)
    with pytest.raises(AddressError):
        parse_multiaddr(f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id_of(key)}")


@pytest.mark.parametrize("size", [0, 31, 33])
def test_keys_of_another_size_are_refused(size: int) -> None:
    with pytest.raises(RemoteProtocolError):
        curve_public_key_of(bytes(size))


def test_both_halves_of_the_curve_key_fit() -> None:
    from nacl.bindings import crypto_scalarmult_base

    assert crypto_scalarmult_base(ME.curve_secret_key) == ME.curve_public_key


def test_an_identity_does_not_print_its_secret() -> None:
    assert ME.seed.hex() not in repr(ME)
    assert str(ME.signing_key) not in repr(ME)
    assert repr(ME) == f"Identity({ME.peer_id})"


def test_signatures_are_bound_to_domain_and_message() -> None:
    signature = ME.sign(b"domain", b"message")
    verify_signature(ME.public_key, b"domain", b"message", signature)
    other = Identity.from_seed(bytes(32))
    for arguments in (
        (other.public_key, b"domain", b"message", signature),
        (ME.public_key, b"domai", b"nmessage", signature),
        (ME.public_key, b"domain", b"messag", signature),
        (ME.public_key, b"domain", b"message", bytes(64)),
        (ME.public_key, b"domain", b"message", b""),
        (bytes(31), b"domain", b"message", signature),
    ):
        with pytest.raises(RemoteProtocolError):
            verify_signature(*arguments)
    assert signed_bytes(b"ab", b"c") != signed_bytes(b"a", b"bc")


GOOD = [
    "/ip4/127.0.0.1/tcp/0",
    "/ip4/1.2.3.4/tcp/65535",
    "/ip6/::1/tcp/4711",
    "/dns4/example.org/tcp/1",
    "/dns6/a-b.c/tcp/1",
    f"/ip4/1.2.3.4/tcp/4711/p2p/{SPEC_PEER_ID}",
]
BAD = [
    "",
    "/",
    "1.2.3.4:5",
    "tcp://1.2.3.4:5",
    "ip4/1.2.3.4/tcp/5",
    "/ip4/1.2.3.4/tcp/5/",
    "/ip4/1.2.3.4/udp/5",
    "/ip4/1.2.3.4/tcp/65536",
    "/ip4/1.2.3.4/tcp/-1",
    "/ip4/1.2.3.4/tcp/",
    "/ip4/1.2.3.4/tcp/٣",
    "/ip4/1.2.3.4/tcp/1e3",
    "/ip4/1.2.3/tcp/5",
    "/ip4/::1/tcp/5",
    "/ip4/1.2.3.4 /tcp/5",
    "/ip6/1.2.3.4/tcp/5",
    "/ip6/fe80::1%eth0/tcp/5",
    "/ip6/::1%\nx/tcp/5",
    "/dns4//tcp/5",
    "/dns4/a..b/tcp/5",
    "/dns4/host\n/tcp/5",
    "/dns4/ho st/tcp/5",
    "/dns4/-a/tcp/5",
    "/dns4/*/tcp/5",
    "/unix/x/tcp/5",
    f"/ip4/1.2.3.4/tcp/5/ipfs/{SPEC_PEER_ID}",
    f"/ip4/1.2.3.4/tcp/5/p2p/{SPEC_PEER_ID}/p2p-circuit",
    "/ip4/1.2.3.4/tcp/5/p2p/nobody",
    "/dns4/" + "a" * 300 + "/tcp/5",
]


@pytest.mark.parametrize("text", GOOD)
def test_good_addresses_come_back_as_they_were(text: str) -> None:
    assert str(parse_multiaddr(text)) == text


@pytest.mark.parametrize("text", BAD)
def test_bad_addresses_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(AddressError) as refusal:
        parse_multiaddr(text)
    assert "\n" not in str(refusal.value)


@given(st.text(alphabet="/ip46dnstcp2:.%1aK \n", max_size=60))
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    try:
        address = parse_multiaddr(text)
    except AddressError:
        return
    assert parse_multiaddr(str(address)) == address


def test_zeromqs_form() -> None:
    assert parse_multiaddr("/ip6/::1/tcp/5").endpoint == "tcp://[::1]:5"
    address = Multiaddr("ip4", "1.2.3.4", 5)
    assert address.endpoint == "tcp://1.2.3.4:5"
    assert str(address.with_port(6).with_peer(ME.peer_id)) == f"/ip4/1.2.3.4/tcp/6/p2p/{ME.peer_id}"
