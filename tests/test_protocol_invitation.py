"""Invitations: whatever one says comes back; whatever happens to the line on its way is found, with the next step."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from protocol import cbor
from protocol.errors import LocalProtocolError
from protocol.finding.invitation import (
    Invitation,
    InvitationError,
    InvitedModel,
    format_invitation,
    parse_invitation,
)
from protocol.identity import Identity
from protocol.multiaddr import MAX_ADDRESS_CHARACTERS, Multiaddr, parse_multiaddr

PEERS = [Identity.from_seed(bytes([number]) * 32).peer_id for number in range(4)]
EXPIRES = 1_800_000_000
GIVEN = Invitation(
    (
        Multiaddr("ip4", "192.168.7.20", 4711, PEERS[0]),
        Multiaddr("ip6", "fe80::1", 4711, PEERS[0]),
        Multiaddr("dns4", "host.example", 1, PEERS[1]),
    ),
    EXPIRES,
    bytes(range(32)),
    (InvitedModel(bytes(32), "story"),),
)
LINE = format_invitation(GIVEN)

hosts = st.one_of(
    st.tuples(st.just("ip4"), st.ip_addresses(v=4).map(str)),
    st.tuples(st.just("ip6"), st.ip_addresses(v=6).map(str)),
    st.tuples(st.sampled_from(["dns4", "dns6"]), st.from_regex(r"[a-z][a-z0-9-]{0,20}\.example", fullmatch=True)),
)
addresses = st.builds(
    lambda host, port, peer: Multiaddr(host[0], host[1], port, peer),
    hosts,
    st.integers(1, 65535),
    st.sampled_from(PEERS),
)
names = st.text(st.characters(exclude_categories=("C", "Z")), max_size=64)
invitations = st.builds(
    Invitation,
    st.lists(addresses, min_size=1, max_size=8).map(tuple),
    st.integers(1, 1 << 40),
    st.none() | st.binary(min_size=32, max_size=32),
    st.lists(st.builds(InvitedModel, st.binary(min_size=32, max_size=32), names), max_size=8).map(tuple),
)


def line_of(body: object, version: int = 1) -> str:
    content = cbor.encode(body)
    content += hashlib.sha256(b"kek/1 invitation" + content).digest()[:8]
    return f"kekahyde:{version}:" + base64.urlsafe_b64encode(content).decode().rstrip("=")


@given(invitations)
def test_what_is_said_comes_back(invitation: Invitation) -> None:
    line = format_invitation(invitation)
    assert parse_invitation(f"  {line}\n", 0) == invitation
    assert line.isascii() and not any(character.isspace() for character in line)


def test_the_line_of_one_address_fits_a_terminal_and_a_qr_code() -> None:
    one = Invitation(GIVEN.addresses[:1], EXPIRES, GIVEN.swarm_key, GIVEN.models)
    assert len(format_invitation(one)) < 240


def test_the_key_is_not_in_its_repr() -> None:
    assert bytes(range(32)).hex() not in repr(GIVEN) and "\\x01" not in repr(GIVEN)


@given(st.integers(0, len(LINE) - 1), st.sampled_from("ABCXYZabcxyz0189-_ \n:é"))
def test_one_changed_character_is_found(at: int, character: str) -> None:
    damaged = LINE[:at] + character + LINE[at + 1 :]
    assume(damaged.strip() != LINE)
    with pytest.raises(InvitationError):
        parse_invitation(damaged, 0)


@given(st.integers(0, len(LINE) - 1))
def test_a_line_cut_short_is_found(length: int) -> None:
    with pytest.raises(InvitationError, match="copy the whole line"):
        parse_invitation(LINE[:length], 0)


@given(
    st.text(max_size=200) | st.binary(max_size=90).map(lambda data: "kekahyde:1:" + base64.b64encode(data).decode())
)
def test_any_other_text_is_an_invitation_error(text: str) -> None:
    with pytest.raises(InvitationError):
        parse_invitation(text, 0)


@given(
    st.recursive(
        st.integers() | st.binary(max_size=40) | st.text(max_size=9),
        lambda inner: st.lists(inner) | st.dictionaries(st.integers(0, 5), inner),
        max_leaves=12,
    )
)
def test_any_other_content_is_an_invitation_error(body: object) -> None:
    with pytest.raises(InvitationError):
        parse_invitation(line_of(body), 0)


def test_an_expired_one_names_the_next_step() -> None:
    assert parse_invitation(LINE, EXPIRES - 1) == GIVEN
    with pytest.raises(InvitationError, match=r"expired at 2027-01-15 08:00 UTC.*kekahyde-node invite"):
        parse_invitation(LINE, EXPIRES)


def test_another_version_names_the_next_step() -> None:
    with pytest.raises(InvitationError, match=r"version 2 .* update the older"):
        parse_invitation(LINE.replace("kekahyde:1:", "kekahyde:2:"), 0)


def test_an_address_that_nobody_can_dial_is_refused() -> None:
    key = Identity.from_seed(bytes(32)).public_key
    for text in ("/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1", "/ip4/127.0.0.1/udp/7"):
        with pytest.raises(InvitationError, match="breaks a rule"):
            parse_invitation(line_of({1: EXPIRES, 2: [[key, [text]]], 3: []}), 0)


def test_sizes_are_bounded_both_ways() -> None:
    nine = GIVEN.addresses * 3
    for wrong in (
        Invitation((), EXPIRES, None),
        Invitation(nine, EXPIRES, None),
        Invitation((parse_multiaddr("/ip4/127.0.0.1/tcp/7"),), EXPIRES, None),
        Invitation(GIVEN.addresses, EXPIRES, b"short"),
        Invitation(GIVEN.addresses, EXPIRES, None, (InvitedModel(bytes(32), "n" * 65),)),
        Invitation(GIVEN.addresses, EXPIRES, None, (InvitedModel(bytes(32), "n"),) * 9),
        Invitation((Multiaddr("dns4", "h" * MAX_ADDRESS_CHARACTERS, 7, PEERS[0]),), EXPIRES, None),
    ):
        with pytest.raises(LocalProtocolError):
            format_invitation(wrong)
    with pytest.raises(InvitationError, match="at most"):
        parse_invitation("kekahyde:1:" + "A" * 9000, 0)
