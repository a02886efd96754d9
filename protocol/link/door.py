"""The door in front of a node's sockets: it lets in whoever knows the swarm's key, before ZeroMQ reads a byte.

Whoever wants a ZeroMQ connection first proves by plain TCP, in four messages of fixed size, that it knows the key of
the swarm. The proof is sealed under that key and holds both identities and both nonces: it is good for one listener,
once, and nobody on the way learns who knocks. A stranger costs the listener 32 random bytes and one failed
decryption. An open swarm has a key that everybody knows: there the door only counts.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import IntEnum

from msgspec import Struct
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from protocol.errors import RemoteProtocolError
from protocol.limits import SWARM_KEY_BYTES
from protocol.link.admission import SwarmKey

# SPEC.md section 6, «The door».
DOOR_MAGIC = b"KEKD\x01"
"""A ZMTP connection begins with 0xff, so one port serves both."""
DOOR_NONCE_BYTES = 32
BOX_NONCE_BYTES = SecretBox.NONCE_SIZE
KEY_BYTES = 32
KNOCK_BYTES = len(DOOR_MAGIC) + DOOR_NONCE_BYTES
CHALLENGE_BYTES = DOOR_NONCE_BYTES
_SEALED_BYTES = BOX_NONCE_BYTES + SecretBox.MACBYTES
KEY_PROOF_BYTES = _SEALED_BYTES + 2 * KEY_BYTES + 2 * DOOR_NONCE_BYTES
ANSWER_BYTES = 1 + _SEALED_BYTES + 2 * DOOR_NONCE_BYTES
_PERSON = b"kek/1 door"


class DoorStatus(IntEnum):
    """First byte of the listener's answer."""

    OPEN = 1
    OTHER_KEY = 2
    """The proof does not open with the listener's key."""
    UNWANTED = 3
    """The proof is good, and its sender is kept out."""
    BUSY = 4
    """The proof is good, and there is no room now."""
    OTHER_NODE = 5
    """The proof is good, and for the door of another node."""


REASONS = {
    DoorStatus.OTHER_KEY: "is in another swarm: join with an invitation of a member "
    "(`kekahyde-node invite`, then `join`)",
    DoorStatus.UNWANTED: "keeps this node out",
    DoorStatus.BUSY: "has no room for another connection now",
    DoorStatus.OTHER_NODE: "is another node than the address says: check the PeerID in it",
}
"""What each refusal means, as the end of a sentence about the listener."""


class DoorError(RemoteProtocolError):
    """The other side of a door broke a rule, or refused; `status` says what goes back, or what came."""

    def __init__(self, status: DoorStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


def door_box(swarm: SwarmKey | None) -> SecretBox:
    """The key that seals proofs: derived from the swarm's key, or from 32 zero bytes in an open swarm."""
    key = bytes(SWARM_KEY_BYTES) if swarm is None else swarm.secret
    return SecretBox(hashlib.blake2b(key=key, digest_size=SecretBox.KEY_SIZE, person=_PERSON).digest())


class Knock(Struct, frozen=True):
    """The dialler's side. Public keys are Ed25519; `nonce` is fresh and random."""

    box: SecretBox
    dialler: bytes
    listener: bytes
    nonce: bytes

    def first(self) -> bytes:
        """What is sent first, KNOCK_BYTES."""
        return DOOR_MAGIC + self.nonce

    def proof(self, challenge: bytes, box_nonce: bytes) -> bytes:
        """The answer to a challenge, KEY_PROOF_BYTES; `box_nonce` is random, BOX_NONCE_BYTES."""
        stated = self.dialler + self.listener + self.nonce + challenge
        return bytes(self.box.encrypt(stated, box_nonce))

    def check(self, challenge: bytes, answer: bytes) -> None:
        """Raises DoorError unless the listener knows the key too and has opened."""
        status = DoorStatus(answer[0]) if answer[0] in _STATUSES else DoorStatus.OTHER_KEY
        if status is not DoorStatus.OPEN:
            raise DoorError(status, REASONS[status])
        try:
            opened = self.box.decrypt(answer[1:])
        except CryptoError as exc:
            raise DoorError(DoorStatus.OTHER_KEY, REASONS[DoorStatus.OTHER_KEY]) from exc
        if not hmac.compare_digest(opened, challenge + self.nonce):
            raise DoorError(DoorStatus.OTHER_KEY, "answered another knock than this one")


_STATUSES = frozenset(DoorStatus)


class Doorway(Struct, frozen=True):
    """The listener's side."""

    box: SecretBox
    listener: bytes

    @staticmethod
    def nonce_of(first: bytes) -> bytes:
        """The dialler's nonce in KNOCK_BYTES; raises DoorError for anything else."""
        if len(first) != KNOCK_BYTES or not first.startswith(DOOR_MAGIC):
            raise DoorError(DoorStatus.OTHER_KEY, "not a knock")
        return first[len(DOOR_MAGIC) :]

    def dialler_of(self, nonce: bytes, challenge: bytes, proof: bytes) -> bytes:
        """Ed25519 key of whoever proved that it knows the swarm's key; raises DoorError."""
        try:
            stated = self.box.decrypt(proof)
        except (CryptoError, ValueError) as exc:
            raise DoorError(DoorStatus.OTHER_KEY, "it does not know the key of this swarm") from exc
        dialler, listener, nonces = stated[:KEY_BYTES], stated[KEY_BYTES : 2 * KEY_BYTES], stated[2 * KEY_BYTES :]
        if not hmac.compare_digest(nonces, nonce + challenge):
            raise DoorError(DoorStatus.OTHER_KEY, "its proof is of another time")
        if not hmac.compare_digest(listener, self.listener):
            raise DoorError(DoorStatus.OTHER_NODE, "it looks for another node")
        return dialler

    def answer(self, nonce: bytes, challenge: bytes, box_nonce: bytes) -> bytes:
        """The door is open, ANSWER_BYTES: the listener knows the key too."""
        return bytes([DoorStatus.OPEN]) + bytes(self.box.encrypt(challenge + nonce, box_nonce))

    @staticmethod
    def refusal(status: DoorStatus) -> bytes:
        """The door stays shut, ANSWER_BYTES."""
        return bytes([status]) + bytes(ANSWER_BYTES - 1)
