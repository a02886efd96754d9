"""Sources of weights that lie or dawdle: the real librarian of a node with one answer replaced."""

from __future__ import annotations

import time

from node.node import Node
from node.serving.librarian import Errand
from protocol.transfer.outline import Outline

BLOB_FAULTS = ("false-piece", "false-outline", "slow-pieces")


def spoil_blobs(node: Node, fault: str, delay_s: float) -> None:
    """From now on the node gives pieces with one wrong bit, or states outlines of other blobs, or takes its time."""
    librarian = node.data.blobs.librarian
    honest_read, honest_outline = librarian.read, librarian.outline

    def read(errand: Errand) -> bytes | None:
        piece = honest_read(errand)
        if fault == "slow-pieces":
            time.sleep(delay_s)
        if piece is None or fault != "false-piece":
            return piece
        return piece[:-1] + bytes([piece[-1] ^ 1])

    def outline(sha256: bytes) -> Outline | None:
        stated = honest_outline(sha256)
        if stated is None or fault != "false-outline" or len(stated.pieces) == 1:
            return stated
        return Outline(stated.size_bytes, (bytes(32), *stated.pieces[1:]))

    librarian.read = read  # type: ignore[method-assign]
    librarian.outline = outline  # type: ignore[method-assign]
