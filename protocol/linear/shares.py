"""One-time pads: where seeds come from and how a seed becomes the pad of a row.

A pad is used for one row once. Seeds are keyed by a session master that never leaves memory and by a
strictly increasing counter, so neither a retry nor a regeneration can use an old pad for a new row.
"""

from __future__ import annotations

import hashlib
import os
from typing import ClassVar

import numpy as np
from msgspec import Struct, field
from nacl.bindings import randombytes_buf_deterministic

from protocol import cbor
from protocol.discreet import Discreet
from protocol.envelope import buffer_bytes
from protocol.errors import LocalProtocolError
from protocol.limits import SEED_BYTES
from protocol.linear.field import Elements, P, elements_of_words

# BLAKE2b's personalisation field, at most 16 bytes, separates the two uses of the function (SPEC.md section 7).
CHUNK_PERSON = b"kek/1 pad chunk"
ROW_PERSON = b"kek/1 pad row"
STIR_PERSON = b"kek/1 pad stir"
# Extra words drawn when a stream holds the one rejected value (probability 2^-31 a word).
_SPARE_WORDS = 16


class PadSeeds(Discreet, Struct):
    """Source of chunk seeds of one session; every call of `next` uses up one counter value."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("master", "model_id", "process")
    master: bytes
    """32 bytes of the operating system's CSPRNG, memory only."""
    model_id: bytes
    counter: int = 0
    process: int = field(default_factory=os.getpid)
    """The only process that may use it: a fork has the same master and counter."""

    def stir(self, fresh: bytes) -> None:
        """Mix 32 bytes of the operating system's CSPRNG into the master; the counter goes on. Two copies of a virtual
        machine that go on with the same memory draw different seeds from then on."""
        if len(fresh) != SEED_BYTES:
            raise LocalProtocolError("32 fresh bytes are mixed into a master")
        self.master = hashlib.blake2b(fresh, key=self.master, digest_size=SEED_BYTES, person=STIR_PERSON).digest()

    def next(self, layer: int | None, kind: str, role: str) -> bytes:
        """32-byte seed of a new chunk. The counter moves before the seed exists, so it cannot recur."""
        if len(self.master) != SEED_BYTES:
            raise LocalProtocolError("the session master has 32 bytes")
        if os.getpid() != self.process:
            raise LocalProtocolError("a forked process has its parent's pads, and must not use them")
        self.counter += 1
        message = cbor.encode([self.model_id, layer, kind, role, self.counter])
        return hashlib.blake2b(message, key=self.master, digest_size=SEED_BYTES, person=CHUNK_PERSON).digest()


def row_seed(chunk_seed: bytes, row: int) -> bytes:
    """32-byte seed of one row of a chunk: keyed BLAKE2b of the row's index, so that chunks can be re-cut."""
    return _row_seed(_keyed(chunk_seed), row)


def pad_row(seed: bytes, num_inputs: int) -> Elements:
    """Pad of one row, `[num_inputs]` u32: ChaCha20 (libsodium's fixed nonce) as LE words, rejecting 2^31 - 1."""
    spare = 0
    while True:
        stream = randombytes_buf_deterministic(4 * (num_inputs + spare), seed)
        elements = elements_of_words(np.frombuffer(stream, dtype="<u4"))
        if len(elements) >= num_inputs:
            return elements[:num_inputs]
        spare += _SPARE_WORDS  # the longer stream has the shorter one as its prefix


def pad_rows(chunk_seed: bytes, row_start: int, row_end: int, num_inputs: int) -> Elements:
    """Pads of rows `[row_start, row_end)` of a chunk: `[row_end - row_start, num_inputs]` u32."""
    words = np.empty((row_end - row_start, num_inputs), dtype="<u4")
    if not words.size:
        return words.astype(np.uint32)
    streams, keyed, start = buffer_bytes(words), _keyed(chunk_seed), 0
    for row in range(row_start, row_end):
        end = start + 4 * num_inputs
        streams[start:end] = randombytes_buf_deterministic(end - start, _row_seed(keyed, row))
        start = end
    words &= np.uint32(P)
    pads = words.astype(np.uint32, copy=False)
    if pads.max() == P:  # hardly ever: a value is rejected
        for place in np.flatnonzero((pads == P).any(axis=1)):
            pads[place] = pad_row(_row_seed(keyed, row_start + int(place)), num_inputs)
    return pads


def _keyed(chunk_seed: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(key=chunk_seed, digest_size=SEED_BYTES, person=ROW_PERSON)


def _row_seed(keyed: hashlib.blake2b, row: int) -> bytes:
    seed = keyed.copy()
    seed.update(b"\x81" + cbor.encode_uint(row))  # [row]
    return seed.digest()
