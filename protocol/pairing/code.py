"""What two devices show and sign when they are paired: the commitment, the code on both screens, the certificates.

The asker commits to its nonce before it sees the answerer's, and the answerer draws its own before it sees the
asker's. So neither, nor anybody between them, can choose the code: a man in the middle, who holds another key
towards each side, shows the same six digits on both screens with a chance of one in a million per attempt.
(ZRTP, RFC 6189 section 4.4.1.1; numeric comparison of Bluetooth.)
"""

from __future__ import annotations

import hashlib
from typing import ClassVar

from msgspec import Struct

from protocol import cbor
from protocol.discreet import Discreet
from protocol.errors import RemoteProtocolError
from protocol.identity import Identity, verify_signature
from protocol.limits import HASH_BYTES

# SPEC.md section 15.
COMMIT_PERSON = b"kek/1 pair hold"
CODE_PERSON = b"kek/1 pair code"
PAIRING_PERSON = b"kek/1 pairing"
CERTIFICATE_DOMAIN = b"kek/1 pairing"
CONSENT_DOMAIN = b"kek/1 may read prompts 2"
NAMED_CONSENT_DOMAIN = b"kek/1 may read prompts"
"""Of consents that were given while only a request that named the mode sent plain rows."""
CODE_DIGITS = 6


def commitment(attempt: bytes, asker: bytes, answerer: bytes, nonce: bytes) -> bytes:
    """What binds the asker to its nonce without showing it."""
    message = cbor.encode([attempt, asker, answerer, nonce])
    return hashlib.blake2b(message, person=COMMIT_PERSON, digest_size=HASH_BYTES).digest()


class Meeting(Discreet, Struct, frozen=True):
    """Everything that both sides of an attempt must agree on; keys are Ed25519 public keys."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("asker_nonce", "answerer_nonce")
    attempt: bytes
    asker: bytes
    answerer: bytes
    asker_nonce: bytes
    answerer_nonce: bytes

    @property
    def code(self) -> str:
        """The six digits that both screens show."""
        digest = hashlib.blake2b(self._message, person=CODE_PERSON, digest_size=8).digest()
        return f"{int.from_bytes(digest, 'big') % 10**CODE_DIGITS:0{CODE_DIGITS}d}"

    @property
    def pairing(self) -> bytes:
        """The name of the pairing that comes of it, 32 bytes: never the same twice."""
        return hashlib.blake2b(self._message, person=PAIRING_PERSON, digest_size=HASH_BYTES).digest()

    @property
    def _message(self) -> bytes:
        return cbor.encode([self.attempt, self.asker, self.answerer, self.asker_nonce, self.answerer_nonce])


class Certificate(Struct, frozen=True):
    """Both devices' signatures, which say that their owner paired them."""

    pairing: bytes
    asker: bytes
    answerer: bytes
    asker_signature: bytes
    answerer_signature: bytes

    def verify(self) -> None:
        """Raise RemoteProtocolError unless both signed it."""
        message = certified(self.pairing, self.asker, self.answerer)
        verify_signature(self.asker, CERTIFICATE_DOMAIN, message, self.asker_signature)
        verify_signature(self.answerer, CERTIFICATE_DOMAIN, message, self.answerer_signature)


def certified(pairing: bytes, asker: bytes, answerer: bytes) -> bytes:
    """What both certificates of a pairing say."""
    return cbor.encode([pairing, asker, answerer])


def sign_consent(identity: Identity, pairing: bytes, reader: bytes) -> bytes:
    """This device's signed consent: a paired device (its public key) may read what it is asked."""
    return identity.sign(CONSENT_DOMAIN, _consented(pairing, identity.public_key, reader))


def verify_consent(owner: bytes, pairing: bytes, reader: bytes, signature: bytes) -> bool:
    """Raise RemoteProtocolError unless `owner` itself gave this consent. Returns whether it holds for `auto` too; an
    older one holds only where a request names the mode."""
    message = _consented(pairing, owner, reader)
    try:
        verify_signature(owner, CONSENT_DOMAIN, message, signature)
    except RemoteProtocolError:
        verify_signature(owner, NAMED_CONSENT_DOMAIN, message, signature)
        return False
    return True


def _consented(pairing: bytes, owner: bytes, reader: bytes) -> bytes:
    return cbor.encode([pairing, owner, reader])
