"""Who a node is: an Ed25519 key, the libp2p PeerID that names it, and the CURVE key derived from it.

A PeerID is the base58btc text of an identity multihash over the protobuf-encoded public key
(libp2p specs, peer-ids.md), so it *contains* the public key: an address that ends in `/p2p/<PeerID>`
is all it takes to dial securely. One key serves two uses; every signature is therefore domain-separated.
"""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar, NewType

from msgspec import Struct
from nacl.exceptions import BadSignatureError, CryptoError
from nacl.signing import SigningKey, VerifyKey

from protocol.discreet import Discreet
from protocol.errors import RemoteProtocolError

PeerId = NewType("PeerId", str)

# SPEC.md section 3. Identity multihash (0x00), 36 bytes (0x24), protobuf PublicKey{Type=Ed25519, Data=32 bytes}.
PEER_ID_PREFIX = bytes.fromhex("002408011220")
PEER_ID_BYTES = len(PEER_ID_PREFIX) + 32
BASE58_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
MAX_PEER_ID_CHARACTERS = 64


def base58_encode(data: bytes) -> str:
    """Base58btc text of `data` (Bitcoin's alphabet, leading zero bytes as `1`)."""
    number = int.from_bytes(data, "big")
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = BASE58_ALPHABET[digit] + digits
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + digits


def base58_decode(text: str) -> bytes:
    """Bytes of a base58btc text; raises RemoteProtocolError on any other character."""
    number = 0
    for character in text:
        digit = BASE58_ALPHABET.find(character)
        if digit < 0:
            raise RemoteProtocolError(f"{character!r} is not a base58 character")
        number = number * 58 + digit
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")


@lru_cache(maxsize=1024)
def peer_id_of(public_key: bytes) -> PeerId:
    """PeerID of a 32-byte Ed25519 public key."""
    return PeerId(base58_encode(PEER_ID_PREFIX + public_key))


@lru_cache(maxsize=1024)
def public_key_of(peer_id: str) -> bytes:
    """The 32-byte Ed25519 key inside a PeerID; raises RemoteProtocolError where there is none."""
    if len(peer_id) > MAX_PEER_ID_CHARACTERS:
        raise RemoteProtocolError(f"a PeerID has at most {MAX_PEER_ID_CHARACTERS} characters")
    data = base58_decode(peer_id)
    if len(data) != PEER_ID_BYTES or not data.startswith(PEER_ID_PREFIX):
        raise RemoteProtocolError(f"{peer_id!r} is not an Ed25519 PeerID (they begin with 12D3KooW)")
    if base58_encode(data) != peer_id:
        raise RemoteProtocolError(f"{peer_id!r} is not canonical base58")
    return data[len(PEER_ID_PREFIX) :]


def curve_public_key_of(public_key: bytes) -> bytes:
    """X25519 key (32 raw bytes) of an Ed25519 public key.

    The map is two-to-one: `A` and `-A` share a curve key. A peer table indexes by curve key as well.

    Raises RemoteProtocolError for a key that is off the curve or of low order.
    """
    try:
        return bytes(VerifyKey(public_key).to_curve25519_public_key())
    except (CryptoError, RuntimeError, ValueError) as exc:
        raise RemoteProtocolError("the public key is not a usable Ed25519 point") from exc


class Identity(Discreet, Struct, frozen=True):
    """A node's secret key and everything that follows from it. Never printed, never sent."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("signing_key",)
    signing_key: SigningKey

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """Identity of a 32-byte Ed25519 seed."""
        return cls(SigningKey(seed))

    @property
    def seed(self) -> bytes:
        return bytes(self.signing_key)

    @property
    def public_key(self) -> bytes:
        return bytes(self.signing_key.verify_key)

    @property
    def peer_id(self) -> PeerId:
        return peer_id_of(self.public_key)

    @property
    def curve_secret_key(self) -> bytes:
        """X25519 secret key, 32 raw bytes."""
        return bytes(self.signing_key.to_curve25519_private_key())

    @property
    def curve_public_key(self) -> bytes:
        """X25519 public key, 32 raw bytes."""
        return curve_public_key_of(self.public_key)

    def sign(self, domain: bytes, message: bytes) -> bytes:
        """Ed25519 signature over a domain-separated message (SPEC.md section 3)."""
        return self.signing_key.sign(signed_bytes(domain, message)).signature

    def __repr__(self) -> str:
        return f"Identity({self.peer_id})"


def signed_bytes(domain: bytes, message: bytes) -> bytes:
    """What a signature covers: one length byte, the domain, the message; no two domains collide."""
    return bytes([len(domain)]) + domain + message


def verify_signature(public_key: bytes, domain: bytes, message: bytes, signature: bytes) -> None:
    """Raise RemoteProtocolError unless `signature` is `public_key`'s over (domain, message)."""
    try:
        VerifyKey(public_key).verify(signed_bytes(domain, message), signature)
    except (BadSignatureError, CryptoError, ValueError) as exc:
        raise RemoteProtocolError("a signature does not verify") from exc
