"""An invitation: where a swarm is found, its key, and the models it runs, as one line to copy and paste.

    kekahyde:1:<base64url of: CBOR map || checksum>

The checksum finds a line that was damaged on its way. It authenticates nothing: whoever holds the line holds the key
of the swarm, and whoever hands it over is believed. The expiry keeps people from using old lines by accident; it
takes the key back from nobody.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, ClassVar

from msgspec import Struct

from protocol import cbor
from protocol.discreet import Discreet
from protocol.errors import AddressError, KekahydeError, LocalProtocolError, RemoteProtocolError
from protocol.fields import take_bytes, take_integer, take_list, take_text, take_texts
from protocol.identity import PeerId, peer_id_of, public_key_of
from protocol.limits import HASH_BYTES, MAX_ADDRESSES, SWARM_KEY_BYTES
from protocol.multiaddr import MAX_ADDRESS_CHARACTERS, Multiaddr, parse_multiaddr

# SPEC.md, section on invitations.
SCHEME = "kekahyde"
INVITATION_VERSION = 1
MAX_INVITATION_CHARACTERS = 8192
MAX_INVITED_MODELS = 8
MAX_MODEL_NAME_CHARACTERS = 64
MAX_EXPIRY_UNIX_S = 1 << 40
CHECKSUM_BYTES = 8
_CHECKSUM_OF = b"kek/1 invitation"

_LINE = re.compile(r"kekahyde:([0-9]{1,4}):([A-Za-z0-9_-]+)")
_NEW_ONE = "ask for a new one, which `kekahyde-node invite` prints"
_COPY = "copy the whole line again, from `kekahyde:` to its end, as one line"


class InvitationError(KekahydeError):
    """A line that cannot be used as an invitation; says why and what to do."""


class InvitedModel(Struct, frozen=True):
    """A model that the swarm runs. Its id is believed on the word of whoever invites."""

    model_id: bytes
    name: str


class Invitation(Discreet, Struct, frozen=True):
    """What an invitation says. It holds a secret: it is printed only as the line itself."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("swarm_key",)
    addresses: tuple[Multiaddr, ...]
    """Each with its PeerID."""
    expires_unix_s: int
    swarm_key: bytes | None
    """None: the swarm is open to everybody."""
    models: tuple[InvitedModel, ...] = ()

    def __repr__(self) -> str:
        return f"Invitation({len(self.addresses)} addresses, expires {self.expires_unix_s})"


def format_invitation(invitation: Invitation) -> str:
    """The line. Raises LocalProtocolError where an invitation cannot say this."""
    body = cbor.encode(_body_of(invitation))
    line = f"{SCHEME}:{INVITATION_VERSION}:{_text_of(body + _checksum(body))}"
    try:
        read = _read(line)
    except (InvitationError, RemoteProtocolError) as exc:
        raise LocalProtocolError(f"an invitation cannot say this: {exc}") from exc
    if read != invitation:
        raise LocalProtocolError("an invitation cannot say this: an address is not in its plain form")
    return line


def parse_invitation(text: str, now_unix_s: float) -> Invitation:
    """Read a line; raises InvitationError where it is damaged, of another version, or too old."""
    try:
        invitation = _read(text.strip())
    except RemoteProtocolError as exc:
        raise InvitationError(f"the invitation is whole but breaks a rule: {exc}; {_NEW_ONE}") from exc
    if invitation.expires_unix_s <= now_unix_s:
        ended = datetime.fromtimestamp(min(invitation.expires_unix_s, 1 << 36), UTC)
        raise InvitationError(f"the invitation expired at {ended:%Y-%m-%d %H:%M} UTC; {_NEW_ONE}")
    return invitation


def _read(line: str) -> Invitation:
    if len(line) > MAX_INVITATION_CHARACTERS:
        raise InvitationError(f"{len(line)} characters are no invitation (at most {MAX_INVITATION_CHARACTERS})")
    if not line.startswith(f"{SCHEME}:"):
        raise InvitationError(f"not an invitation: one begins with `{SCHEME}:{INVITATION_VERSION}:`; {_COPY}")
    matched = _LINE.fullmatch(line)
    if matched is None:
        raise InvitationError(f"the invitation is damaged: it holds characters that no invitation has; {_COPY}")
    if int(matched[1]) != INVITATION_VERSION:
        raise InvitationError(
            f"the invitation is of version {int(matched[1])} and this program reads version {INVITATION_VERSION}: "
            "update the older of the two programs"
        )
    return _invitation_of(_checked(matched[2]))


def _checked(text: str) -> bytes:
    """The CBOR inside, once the checksum agrees. Only one text is legal for the same bytes."""
    try:
        content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        content = b""
    body = content[:-CHECKSUM_BYTES]
    if not body or _text_of(content) != text or content[-CHECKSUM_BYTES:] != _checksum(body):
        raise InvitationError(f"the invitation is damaged: its checksum does not agree; {_COPY}")
    return body


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(_CHECKSUM_OF + body).digest()[:CHECKSUM_BYTES]


def _text_of(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _body_of(invitation: Invitation) -> dict[int, Any]:
    peers = []
    for peer_id, group in groupby(invitation.addresses, lambda address: address.peer_id):
        if peer_id is None:
            raise LocalProtocolError("an address of an invitation carries a PeerID")
        peers.append([public_key_of(peer_id), [str(address).partition("/p2p/")[0] for address in group]])
    models = [[model.model_id, model.name] for model in invitation.models]
    body: dict[int, Any] = {1: invitation.expires_unix_s, 2: peers, 3: models}
    return body if invitation.swarm_key is None else {0: invitation.swarm_key} | body


def _invitation_of(body: bytes) -> Invitation:
    fields = cbor.decode(body, MAX_INVITATION_CHARACTERS)
    if not isinstance(fields, dict) or not all(type(key) is int for key in fields):
        raise RemoteProtocolError("its content is not a map with integer keys")
    addresses = [address for entry in take_list(fields, 2, MAX_ADDRESSES) for address in _read_peer(entry)]
    if not 1 <= len(addresses) <= MAX_ADDRESSES:
        raise RemoteProtocolError(f"it names {len(addresses)} addresses instead of 1 to {MAX_ADDRESSES}")
    return Invitation(
        addresses=tuple(addresses),
        expires_unix_s=take_integer(fields, 1, 0, MAX_EXPIRY_UNIX_S),
        swarm_key=take_bytes(fields, 0, SWARM_KEY_BYTES) if 0 in fields else None,
        models=tuple(_read_model(entry) for entry in take_list(fields, 3, MAX_INVITED_MODELS)),
    )


def _read_peer(entry: Any) -> list[Multiaddr]:
    fields = _pair(entry)
    peer_id = peer_id_of(take_bytes(fields, 0, 32))
    return [_read_address(text, peer_id) for text in take_texts(fields, 1, MAX_ADDRESSES, MAX_ADDRESS_CHARACTERS)]


def _read_address(text: str, peer_id: PeerId) -> Multiaddr:
    try:
        address = parse_multiaddr(f"{text}/p2p/{peer_id}")
    except AddressError as exc:
        raise RemoteProtocolError(str(exc)) from exc
    if not address.port:
        raise RemoteProtocolError(f"{text!r} has no port")
    return address


def _read_model(entry: Any) -> InvitedModel:
    fields = _pair(entry)
    return InvitedModel(take_bytes(fields, 0, HASH_BYTES), take_text(fields, 1, MAX_MODEL_NAME_CHARACTERS))


def _pair(entry: Any) -> dict[int, Any]:
    if not isinstance(entry, list) or len(entry) != 2:
        raise RemoteProtocolError("an entry of its lists is not a pair")
    return dict(enumerate(entry))
