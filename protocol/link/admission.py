"""Who is in: a swarm's 32-byte key, and the proof in a hello that its sender knows it.

The proof is bound to both identities, both nonces and both lists of versions. CURVE has proved the identities, so
nobody can use a proof that somebody else made, on another link or for another peer; and it tells nothing about the
key, which is 32 random bytes.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from msgspec import Struct
from msgspec.structs import replace

from protocol import cbor
from protocol.discreet import Discreet
from protocol.errors import SwarmKeyError
from protocol.limits import PROOF_BYTES, SWARM_KEY_BYTES
from protocol.link.hello import Hello, HelloOk

# SPEC.md section 6.
PROOF_PERSON = b"kek/1 swarm"
NAME_PERSON = b"kek/1 swarm name"
NAME_BYTES = 4


class SwarmKey(Discreet, Struct, frozen=True):
    """What all members of a private swarm share. Never logged: `repr` shows the name alone."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("secret",)
    secret: bytes

    def __post_init__(self) -> None:
        if len(self.secret) != SWARM_KEY_BYTES:
            raise SwarmKeyError(f"a swarm key has {SWARM_KEY_BYTES} bytes, not {len(self.secret)}")

    def __repr__(self) -> str:
        return f"SwarmKey({self.name})"

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """Read 64 hex digits; raises SwarmKeyError, which never repeats what was given."""
        digits = text.strip()
        if len(digits) != 2 * SWARM_KEY_BYTES or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
            raise SwarmKeyError(f"a swarm key is {2 * SWARM_KEY_BYTES} hex digits")
        return cls(bytes.fromhex(digits))

    @property
    def name(self) -> str:
        """Eight hex digits by which people can tell swarms apart."""
        return hashlib.blake2b(key=self.secret, person=NAME_PERSON, digest_size=NAME_BYTES).hexdigest()

    def prove(self, hello: Hello, listener: bytes) -> Hello:
        """The dialler's hello to `listener` (its public key) with its proof."""
        return replace(hello, proof=self._hello_proof(hello, listener))

    def prove_answer(self, hello: Hello, answer: HelloOk) -> HelloOk:
        """The listener's answer to `hello` with its proof."""
        return replace(answer, proof=self._answer_proof(hello, answer))

    def accepts(self, hello: Hello, listener: bytes) -> bool:
        """Whether a dialler's hello proves that it knows this key."""
        return hmac.compare_digest(hello.proof or b"", self._hello_proof(hello, listener))

    def accepts_answer(self, hello: Hello, answer: HelloOk) -> bool:
        """Whether a listener's answer to `hello` proves that it knows this key."""
        return hmac.compare_digest(answer.proof or b"", self._answer_proof(hello, answer))

    def _hello_proof(self, hello: Hello, listener: bytes) -> bytes:
        return self._proof(["hello", hello.public_key, listener, list(hello.versions), hello.nonce])

    def _answer_proof(self, hello: Hello, answer: HelloOk) -> bytes:
        asked = [hello.public_key, answer.public_key, list(hello.versions), hello.nonce]
        return self._proof(["hello-ok", *asked, list(answer.versions), answer.nonce])

    def _proof(self, bound: Sequence[Any]) -> bytes:
        return hashlib.blake2b(
            cbor.encode(list(bound)), key=self.secret, person=PROOF_PERSON, digest_size=PROOF_BYTES
        ).digest()
