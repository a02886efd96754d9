"""Sources of weights that lie or dawdle: the real disk reader of a node with one answer replaced."""

from __future__ import annotations

import time

from node.node import Node
from node.serving.disk_reader import ReadTask
from protocol.transfer.outline import Outline

BLOB_FAULTS = ("false-piece", "false-outline", "slow-pieces")


def spoil_blobs(node: Node, fault: str, delay_s: float) -> None:
    """From now on the node gives pieces with one wrong bit, or states outlines of other blobs, or takes its time."""
    disk_reader = node.data.blobs.disk_reader
    honest_read, honest_outline = disk_reader.read, disk_reader.outline

    def read(task: ReadTask) -> bytes | None:
        piece = honest_read(task)
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

    disk_reader.read = read  # type: ignore[method-assign]
    disk_reader.outline = outline  # type: ignore[method-assign]
