"""How a blob is cut into pieces, and how a piece is known to be right.

A manifest names a blob by one SHA-256 over all of it, which cannot check a single piece. So a source states
the blob's *outline*: its size and the SHA-256 of every piece. Nothing proves an outline until the blob is whole, but
there is one true outline for one hash; whoever stated another one has lied, and is caught.
"""

from __future__ import annotations

import hashlib

from msgspec import Struct

from protocol.limits import HASH_BYTES, MAX_BLOB_PIECES, PIECE_BYTES

ROOT_DOMAIN = b"kek/1 outline"


def num_pieces(size_bytes: int) -> int:
    """How many pieces a blob of this size has."""
    return -(-size_bytes // PIECE_BYTES)


class Outline(Struct, frozen=True):
    """Size and piece hashes of a blob, as one source states them."""

    size_bytes: int
    pieces: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.pieces) <= MAX_BLOB_PIECES or len(self.pieces) != num_pieces(self.size_bytes):
            raise ValueError(f"{len(self.pieces)} pieces for {self.size_bytes} bytes")
        if any(len(piece) != HASH_BYTES for piece in self.pieces):
            raise ValueError("a piece hash of another length")

    @property
    def root(self) -> bytes:
        """One hash for the whole statement: sources with the same root say the same."""
        digest = hashlib.sha256(ROOT_DOMAIN + self.size_bytes.to_bytes(8, "little"))
        digest.update(b"".join(self.pieces))
        return digest.digest()

    def piece_bytes(self, index: int) -> int:
        """Size of a piece: 1 MiB but for the last."""
        return min(PIECE_BYTES, self.size_bytes - index * PIECE_BYTES)

    def fits(self, index: int, data: bytes | bytearray | memoryview) -> bool:
        """Whether these are the bytes that the outline states for a piece."""
        return len(data) == self.piece_bytes(index) and hashlib.sha256(data).digest() == self.pieces[index]


def outline_of_one_piece(sha256: bytes, size_bytes: int) -> Outline:
    """The outline of a blob of a single piece: its hash is the blob's, so no source has to state it."""
    return Outline(size_bytes, (sha256,))
