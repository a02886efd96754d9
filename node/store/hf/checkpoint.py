"""A Hugging Face checkpoint folder, opened lazily and checked before a weight is read.

Every tensor that the architecture needs must exist in its shape, and no other may exist: an unknown tensor would be a
part of the model that we do not compute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from node.errors import CorruptModelError, ModelNotFoundError, UnsupportedModelError
from node.json_file import read_json_object
from node.model.config import ModelConfig
from node.store.hf.config import read_config
from node.store.hf.layout import EMBEDDING, HEAD, IGNORED_SUFFIX, NORM_SUFFIX, gain_offset, tensor_shapes
from node.store.hf.text_tensors import StoredTensor, text_tensors
from node.store.tensor_file import TensorFile
from protocol.linear.field import Floats

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
COMPARED_WEIGHTS = 1 << 22
"""Number of weights of embedding and head that are widened and compared together."""


class Checkpoint:
    """The weights of a checkpoint by name; a read widens them to float32."""

    def __init__(self, folder: Path, config: ModelConfig, files: dict[str, StoredTensor]) -> None:
        self.folder = folder
        self.config = config
        self._files = files
        """The place of every tensor of the text model."""
        self._gain_offset = np.float32(gain_offset(config))
        self.embedding = EMBEDDING if EMBEDDING in files else HEAD
        """The tensor that holds the embedding; a tied model may have stored it as its head."""
        self.head = self.embedding if config.tie_word_embeddings else HEAD

    def tensor(self, name: str) -> Floats:
        """The whole tensor; the architecture must have a tensor of this name."""
        return self.rows(name, 0, self._files[name].shape[0])

    def rows(self, name: str, start: int, stop: int) -> Floats:
        """Rows `start` to `stop` of a tensor; no more of it is in memory."""
        rows = self._files[name].rows(start, stop)
        return rows + self._gain_offset if self._gain_offset and name.endswith(NORM_SUFFIX) else rows

    @property
    def embedding_dtype(self) -> str:
        """The dtype in which the embedding is stored and kept: F32, F16 or BF16."""
        return self._files[self.embedding].dtype

    def embedding_blocks(self, num_rows: int) -> Iterator[bytes]:
        """The embedding's stored bytes, `num_rows` rows at a time."""
        stored = self._files[self.embedding].raw()
        for start in range(0, len(stored), num_rows):
            yield stored[start : start + num_rows].tobytes()


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Opens a checkpoint folder.

    Raises:
        ModelNotFoundError: there is no such folder, or a file of it is missing.
        UnsupportedModelError: it holds a model that is not supported.
        CorruptModelError: its files contradict each other.
    """
    folder = Path(path)
    _refuse_other_formats(folder)
    config = read_config(folder)
    _refuse_without_safetensors(folder)
    files = text_tensors(_open_files(folder))
    _check_tensors(folder, config, files)
    return Checkpoint(folder, _as_stored(config, files), files)


def _as_stored(config: ModelConfig, files: dict[str, StoredTensor]) -> ModelConfig:
    """The configuration; it is not tied if a stored head differs from the embedding. As in transformers, the weights
    decide."""
    if not config.tie_word_embeddings or not (EMBEDDING in files and HEAD in files):
        return config
    step = max(1, COMPARED_WEIGHTS // config.hidden_size)
    for start in range(0, config.vocab_size, step):
        stop = min(start + step, config.vocab_size)
        embedding, head = (files[name].rows(start, stop) for name in (EMBEDDING, HEAD))
        if not np.array_equal(embedding, head, equal_nan=True):
            return replace(config, tie_word_embeddings=False)
    return config


def _refuse_other_formats(folder: Path) -> None:
    if folder.is_dir() and not _has_config(folder) and (found := sorted(folder.glob("*.gguf"))):
        raise UnsupportedModelError(f"{folder} holds GGUF files and no config.json; name one, such as {found[0]}")
    if not folder.is_dir():
        raise ModelNotFoundError(
            f"no model at {folder}; name a folder that holds config.json and safetensors, or a GGUF file"
        )


def _has_config(folder: Path) -> bool:
    return (folder / "config.json").exists()


def _refuse_without_safetensors(folder: Path) -> None:
    if (folder / SINGLE_FILE).exists() or (folder / INDEX_FILE).exists():
        return
    if any(True for pattern in ("*.bin", "*.pt", "*.pth") for _ in folder.glob(pattern)):
        raise UnsupportedModelError(
            f"{folder} holds pickled weights only, which can run code and are never read; use its safetensors version"
        )
    raise ModelNotFoundError(f"{folder} holds neither {SINGLE_FILE} nor {INDEX_FILE}; fetch the model again")


def _open_files(folder: Path) -> dict[str, TensorFile]:
    """The opened file of every tensor in the checkpoint, by the tensor's name."""
    if (folder / SINGLE_FILE).exists():
        file = TensorFile(folder / SINGLE_FILE)
        return dict.fromkeys(file.tensors, file)
    weight_map = read_json_object(folder / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CorruptModelError(f"{folder / INDEX_FILE} has no weight_map; fetch the model again")
    shards = {name: TensorFile(_shard_path(folder, name)) for name in sorted(set(map(str, weight_map.values())))}
    files = {tensor: shards[shard] for tensor, shard in weight_map.items()}
    for tensor, file in files.items():
        if tensor not in file.tensors:
            raise CorruptModelError(f"{file.path} lacks the tensor {tensor} that the index names; fetch it again")
    for shard in shards.values():  # if file and index differ, other programs would read another model
        unnamed = [
            name for name in shard.tensors if files.get(name) is not shard and not name.endswith(IGNORED_SUFFIX)
        ]
        if unnamed:
            raise CorruptModelError(
                f"{shard.path} holds the tensor {_first(unnamed)}, which {INDEX_FILE} does not name there; "
                "fetch both again"
            )
    return files


def _shard_path(folder: Path, name: str) -> Path:
    """The path of a shard. An index may have only plain file names; else it could name any file of this machine."""
    if not name.endswith(".safetensors") or name != Path(name).name or "\\" in name or "\0" in name:
        raise CorruptModelError(f"{folder / INDEX_FILE} names the file {name!r}, which is not one of this folder")
    return folder / name


def _check_tensors(folder: Path, config: ModelConfig, files: dict[str, StoredTensor]) -> None:
    expected: dict[str, Any] = dict(tensor_shapes(config))
    if config.tie_word_embeddings:
        expected[HEAD] = expected[EMBEDDING]
        if EMBEDDING not in files and HEAD in files:
            del expected[EMBEDDING]
    missing = [name for name in expected if name not in files and not (name == HEAD and config.tie_word_embeddings)]
    if missing:
        raise CorruptModelError(f"{folder} lacks the tensor {_first(missing)}; fetch the model again")
    unknown = [name for name in files if name not in expected and not name.endswith(IGNORED_SUFFIX)]
    if unknown:
        raise UnsupportedModelError(
            f"{folder} holds the tensor {_first(unknown)}, which a plain {config.model_type} model lacks; "
            "use an unmodified checkpoint"
        )
    for name, shape in expected.items():
        if name in files and files[name].shape != shape:
            found = list(files[name].shape)
            raise CorruptModelError(
                f"{folder}: tensor {name} has the shape {found}, but config.json says {list(shape)}; fetch it again"
            )


def _first(names: Iterable[str]) -> str:
    """The first name, and how many more there are."""
    ordered = sorted(names)
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} (and {len(ordered) - 1} more)"
