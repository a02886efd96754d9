"""What a node says of itself to its local network, so that its own swarm finds it and nobody else learns who it is.

Multicast DNS is heard by everybody on the network. A node of a private swarm therefore announces its key sealed with
the key of the swarm: members open it, others see random bytes that are fresh with every start. A node of an open
swarm has nothing to hide and announces its PeerID as it is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId, curve_public_key_of, peer_id_of, public_key_of

# SPEC.md, section on the local network.
SERVICE_TYPE = "_kekahyde._tcp.local."
ANNOUNCEMENT_VERSION = b"1"
ANNOUNCEMENT_NONCE_BYTES = 24
MAX_ANNOUNCED_CHARACTERS = 128
_PERSON = b"kek/1 mdns"

VERSION_KEY, SEALED_KEY, OPEN_KEY = b"v", b"s", b"id"


def announce(public_key: bytes, swarm_key: bytes | None, nonce: bytes) -> dict[bytes, bytes]:
    """TXT entries of a node; `nonce` is random and used for one announcement."""
    if swarm_key is None:
        return {VERSION_KEY: ANNOUNCEMENT_VERSION, OPEN_KEY: peer_id_of(public_key).encode()}
    sealed = _box(swarm_key).encrypt(public_key, nonce)
    return {VERSION_KEY: ANNOUNCEMENT_VERSION, SEALED_KEY: base64.b64encode(sealed)}


def read_announcement(entries: Mapping[bytes, bytes | None], swarm_key: bytes | None) -> PeerId | None:
    """Who announced these TXT entries; None where it is no node of this swarm, or none at all."""
    text = entries.get(OPEN_KEY if swarm_key is None else SEALED_KEY)
    if entries.get(VERSION_KEY) != ANNOUNCEMENT_VERSION or text is None or len(text) > MAX_ANNOUNCED_CHARACTERS:
        return None
    try:
        public_key = public_key_of(text.decode("ascii")) if swarm_key is None else _opened(swarm_key, text)
        curve_public_key_of(public_key)
    except (RemoteProtocolError, CryptoError, binascii.Error, ValueError):
        return None
    return peer_id_of(public_key)


def _opened(swarm_key: bytes, text: bytes) -> bytes:
    return _box(swarm_key).decrypt(base64.b64decode(text, validate=True))


def _box(swarm_key: bytes) -> SecretBox:
    return SecretBox(hashlib.blake2b(key=swarm_key, digest_size=32, person=_PERSON).digest())
