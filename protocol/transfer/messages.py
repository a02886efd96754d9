"""Messages 40 to 44: blobs (units, manifests, files of a model) fetched by their SHA-256, piece by piece.

They travel on the data plane. An answer carries the id of its question; a piece comes as several slices under one id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from protocol.envelope import MAX_ID, DType, Tensor
from protocol.errors import RemoteProtocolError
from protocol.fields import take_bytes, take_integer
from protocol.limits import HASH_BYTES, MAX_BLOB_PIECES, PIECE_BYTES, SLICE_BYTES
from protocol.message import BodyMessage, Message, MessageType
from protocol.transfer.outline import Outline, num_pieces, outline_of_one_piece

MAX_BLOB_BYTES = MAX_BLOB_PIECES * PIECE_BYTES


class BlobAsk(BodyMessage, frozen=True):
    """Do you hold this blob, and what are its pieces? Answered by an outline or NOT_FOUND."""

    TYPE: ClassVar[MessageType] = MessageType.BLOB_ASK
    sha256: bytes

    def to_body(self) -> dict[int, Any]:
        return {0: self.sha256}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls(take_bytes(body, 0, HASH_BYTES))


class BlobOutline(Message, frozen=True):
    """Answer to a BlobAsk: what the sender holds under this hash."""

    TYPE: ClassVar[MessageType] = MessageType.BLOB_OUTLINE
    sha256: bytes
    outline: Outline

    def to_body(self) -> dict[int, Any]:
        return {0: self.sha256, 1: self.outline.size_bytes}

    def to_buffers(self) -> tuple[Tensor, ...]:
        """The piece hashes, `[pieces, 32]` u8; nothing for a single piece, whose hash is the blob's."""
        if len(self.outline.pieces) == 1:
            return ()
        table = np.frombuffer(b"".join(self.outline.pieces), dtype=np.uint8)
        return (Tensor(DType.U8, table.reshape(-1, HASH_BYTES)),)

    @classmethod
    def from_parts(cls, body: Mapping[int, Any], buffers: tuple[Tensor, ...]) -> Self:
        sha256 = take_bytes(body, 0, HASH_BYTES)
        size_bytes = take_integer(body, 1, 1, MAX_BLOB_BYTES)
        count = num_pieces(size_bytes)
        if count == 1 and not buffers:
            return cls(sha256, outline_of_one_piece(sha256, size_bytes))
        if len(buffers) != 1 or buffers[0].dtype is not DType.U8 or buffers[0].data.shape != (count, HASH_BYTES):
            raise RemoteProtocolError("an outline carries one u8 buffer of a hash a piece, or none for one piece")
        return cls(sha256, Outline(size_bytes, tuple(row.tobytes() for row in buffers[0].data)))


class PieceAsk(BodyMessage, frozen=True):
    """Send me this piece, as far as my credit reaches. Answered by slices, or one error."""

    TYPE: ClassVar[MessageType] = MessageType.PIECE_ASK
    sha256: bytes
    index: int

    def to_body(self) -> dict[int, Any]:
        return {0: self.sha256, 1: self.index}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls(take_bytes(body, 0, HASH_BYTES), take_integer(body, 1, 0, MAX_BLOB_PIECES - 1))


class PieceSlice(Message, frozen=True, eq=False):
    """A part of the piece that was asked for under this message's id; slices come in order."""

    TYPE: ClassVar[MessageType] = MessageType.PIECE_SLICE
    offset: int
    """Where the part begins in the piece."""
    data: memoryview

    def to_body(self) -> dict[int, Any]:
        return {0: self.offset}

    def to_buffers(self) -> tuple[Tensor, ...]:
        """The bytes, `[n]` u8."""
        return (Tensor(DType.U8, np.frombuffer(self.data, dtype=np.uint8)),)

    @classmethod
    def from_parts(cls, body: Mapping[int, Any], buffers: tuple[Tensor, ...]) -> Self:
        if len(buffers) != 1 or buffers[0].dtype is not DType.U8 or buffers[0].data.ndim != 1:
            raise RemoteProtocolError("a slice carries one u8 buffer of one dimension")
        if not 0 < buffers[0].data.size <= SLICE_BYTES:
            raise RemoteProtocolError(f"a slice of {buffers[0].data.size} bytes, 1 to {SLICE_BYTES} are read")
        return cls(take_integer(body, 0, 0, PIECE_BYTES - 1), buffers[0].data.data)


class Credit(BodyMessage, frozen=True):
    """How many bytes of slices, in all, the receiver may send on this connection since it began. It only grows."""

    TYPE: ClassVar[MessageType] = MessageType.CREDIT
    total_bytes: int

    def to_body(self) -> dict[int, Any]:
        return {0: self.total_bytes}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls(take_integer(body, 0, 0, MAX_ID))


TransferMessage = BlobAsk | BlobOutline | PieceAsk | PieceSlice | Credit
