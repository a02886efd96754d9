"""A GGUF model, opened like a Hugging Face checkpoint and checked before a weight is read."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from node.errors import CorruptModelError, UnsupportedModelError
from node.model.config import MAX_DIMENSION
from node.store.gguf.config import read_gguf_config
from node.store.gguf.family import PAIRED
from node.store.gguf.header import Header, TensorPlace, read_header
from node.store.gguf.layout import name_in_gguf, row_order
from node.store.gguf.parts import parts_of
from node.store.gguf.rope import FACTOR_TENSORS
from node.store.gguf.tensors import GgufTensors
from node.store.gguf.vocabulary import tokenizer_files
from node.store.hf.layout import EMBEDDING, HEAD, tensor_shapes
from protocol.linear.field import Floats


class GgufCheckpoint:
    """The weights of a GGUF model under their names in a checkpoint; a read widens them to float32.

    Args:
        path: the file, or any part of a split one.

    Raises:
        ModelNotFoundError: a part of it is missing.
        UnsupportedModelError: it holds a model that is not supported.
        CorruptModelError: its files contradict each other.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        paths = parts_of(path)
        headers = [read_header(part) for part in paths]
        self._places = _all_places(paths, headers)
        self._files: dict[str, GgufTensors] = {}
        for part, header in zip(paths, headers, strict=True):
            self._files.update(dict.fromkeys(header.tensors, GgufTensors(part, header.tensors)))
        metadata = headers[0].metadata
        self._is_paired = metadata.get("general.architecture") in PAIRED
        self.config = read_gguf_config(metadata, self._places, self._factors(), str(path))
        self._check_tensors()
        self.embedding = EMBEDDING
        self.head = EMBEDDING if self.config.tie_word_embeddings else HEAD
        files = tokenizer_files(metadata, str(path))
        self.folder = Path(tempfile.mkdtemp(prefix="kekahyde-gguf-"))
        """The folder with the files of its tokenizer, while this object exists."""
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        for name, content in files.items():
            (self.folder / name).write_bytes(content)

    def tensor(self, name: str) -> Floats:
        """The whole tensor; the architecture must have a tensor of this name."""
        return self.rows(name, 0, self._places[self._name(name)].shape[0])

    def rows(self, name: str, start: int, stop: int) -> Floats:
        """Rows `start` to `stop` of a tensor; no more of it is in memory."""
        order = row_order(self.config, name, self._is_paired)
        return self._rows_of(self._name(name), slice(start, stop) if order is None else order[start:stop])

    @property
    def embedding_dtype(self) -> str:
        """The dtype in which the embedding is kept: as stored, but ggml's blocks are widened."""
        stored = self._places[self._name(EMBEDDING)].type.name
        return stored if stored in ("F32", "F16", "BF16") else "F32"

    def embedding_blocks(self, num_rows: int) -> Iterator[bytes]:
        """The embedding's bytes in that dtype, `num_rows` rows at a time."""
        name = self._name(EMBEDDING)
        plain = self._places[name].type.name == self.embedding_dtype
        for start in range(0, self.config.vocab_size, num_rows):
            rows = slice(start, start + num_rows)
            if plain:
                yield self._files[name].stored(name)[rows].tobytes()
            else:
                yield self._rows_of(name, rows).astype("<f4").tobytes()

    def _factors(self) -> dict[str, Floats]:
        """The tensors that hold factors of rotary frequencies; the file is refused if they are not short vectors."""
        present = [name for name in FACTOR_TENSORS if name in self._places]
        for name in present:
            if len(shape := self._places[name].shape) != 1 or shape[0] > MAX_DIMENSION:
                raise CorruptModelError(f"{self.path}: tensor {name} has the shape {list(shape)}; fetch it again")
        return {name: self._rows_of(name, slice(None)) for name in present}

    def _name(self, name: str) -> str:
        return name_in_gguf(self.config, name)

    def _rows_of(self, name: str, wanted: slice | np.ndarray) -> Floats:
        return self._files[name].rows(name, wanted)

    def _check_tensors(self) -> None:
        shapes = {self._name(name): shape for name, shape in tensor_shapes(self.config)}
        missing = sorted(shapes.keys() - self._places.keys())
        if missing:
            raise CorruptModelError(f"{self.path} lacks the tensor {missing[0]}; fetch the model again")
        unknown = sorted(self._places.keys() - shapes.keys() - set(FACTOR_TENSORS))
        if unknown:
            raise UnsupportedModelError(
                f"{self.path} holds the tensor {unknown[0]}, which a plain {self.config.model_type} model lacks; "
                "use an unmodified file"
            )
        for name, shape in shapes.items():
            if self._places[name].shape != shape:
                found = list(self._places[name].shape)
                raise CorruptModelError(
                    f"{self.path}: tensor {name} has the shape {found}, but its metadata say {list(shape)}"
                )


def _all_places(paths: list[Path], headers: list[Header]) -> dict[str, TensorPlace]:
    places: dict[str, TensorPlace] = {}
    for path, header in zip(paths, headers, strict=True):
        if twice := places.keys() & header.tensors.keys():
            raise CorruptModelError(f"{path} holds the tensor {min(twice)}, which another part holds too")
        places.update(header.tensors)
    return places
