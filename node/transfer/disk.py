"""Blobs on disk: an incomplete blob is a file of the blob's full size; a complete blob has its own name.

There is no record of progress: after a crash each piece of the file is compared with the outline again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from node.store.files import sha256_file, sync, sync_folder, writing_to
from protocol.limits import PIECE_BYTES
from protocol.transfer.actions import Verdict
from protocol.transfer.outline import Outline

Destination = Callable[[bytes], list[Path]]


class BlobDisk:
    """The files of one fetch. Used only by its thread.

    Args:
        folder: the folder of incomplete blobs; created if needed.
        destination: gives the paths of a complete blob and its copies.
    """

    def __init__(self, folder: Path, destination: Destination) -> None:
        self._folder = folder
        self._destination = destination
        self._outlines: dict[bytes, Outline] = {}
        self._open: dict[bytes, int] = {}
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def begin(self, sha256: bytes, outline: Outline) -> set[int]:
        """Create the file of a blob; returns the pieces that it already has."""
        self._outlines[sha256] = outline
        with writing_to(self._folder):
            descriptor = self._open.get(sha256)
            if descriptor is None:
                descriptor = self._open[sha256] = os.open(self._path(sha256), os.O_RDWR | os.O_CREAT, 0o600)
            fresh = os.fstat(descriptor).st_size == 0
            os.ftruncate(descriptor, outline.size_bytes)
            return set() if fresh else self._present(sha256)

    def write(self, sha256: bytes, index: int, data: bytearray) -> None:
        """Write a verified piece."""
        with writing_to(self._folder):
            view, at = memoryview(data), index * PIECE_BYTES
            while view:
                written = os.pwrite(self._open[sha256], view, at)
                view, at = view[written:], at + written

    def check(self, sha256: bytes) -> tuple[Verdict, set[int]]:
        """Compare a complete blob with its hash. If it matches, move the blob to its place; else say which pieces are
        right."""
        descriptor = self._open[sha256]
        with writing_to(self._folder):
            sync(descriptor)
            if sha256_file(self._path(sha256)) != sha256:
                present = self._present(sha256)
                complete = len(present) == len(self._outlines[sha256].pieces)
                return (Verdict.FALSE_OUTLINE if complete else Verdict.DAMAGED), present
            self._move(sha256)
        os.close(self._open.pop(sha256))
        del self._outlines[sha256]
        return Verdict.WHOLE, set()

    def close(self) -> None:
        """Close the files; their content stays for the next time."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _move(self, sha256: bytes) -> None:
        first, *copies = self._destination(sha256)
        first.parent.mkdir(parents=True, exist_ok=True)
        self._path(sha256).replace(first)
        for copy in copies:
            shutil.copyfile(first, copy)
        sync_folder(first.parent)

    def _present(self, sha256: bytes) -> set[int]:
        outline, descriptor = self._outlines[sha256], self._open[sha256]
        pieces = ((i, os.pread(descriptor, PIECE_BYTES, i * PIECE_BYTES)) for i in range(len(outline.pieces)))
        return {index for index, piece in pieces if outline.fits(index, piece)}

    def _path(self, sha256: bytes) -> Path:
        return self._folder / sha256.hex()
