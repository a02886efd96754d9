"""An imported model, ready to use. Units and embedding stay on disk and are mapped into memory when needed."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from node.errors import CorruptModelError, ModelNotFoundError, PromptError
from node.json_file import read_bounded, read_json_object
from node.model.config import ModelConfig, UnitKind
from node.model.named_tokens import template_source, tokenizer_config
from node.model.tokenizer import Tokenizer
from node.model.unit import Unit, UnitRef
from node.store.client_file import EMBEDDING, bias_key, norm_key
from node.store.files import sha256_file, verify_file
from node.store.manifest import (
    CLIENT_FILE,
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    UNITS_FOLDER,
    Manifest,
    model_id_of,
)
from node.store.tensor_file import TensorFile, widen
from node.store.unit_file import load_unit, unit_path
from protocol.linear.field import Floats
from protocol.linear.verification import UnitCheck

if TYPE_CHECKING:
    from node.model.guide import GuideTokens
    from node.model.template import ChatTemplate


class StoredModel:
    """One model of the store. Safe to share between threads.

    Args:
        path: its folder, whose name is its id.
        name: the user's name for it; by default its id.
        verify: check every file's hash before its first use in this process.
        files: those beside the units that are here; None: all.

    Raises:
        ModelNotFoundError: there is no manifest.
        CorruptModelError: the manifest, or a file that the client needs at once, has the wrong hash.
    """

    def __init__(
        self, path: Path, name: str | None = None, verify: bool = True, files: Collection[str] | None = None
    ) -> None:
        self.path = path
        self._verify = verify
        self.manifest = _read_manifest(path)
        self.model_id = path.name
        """Lower-case hex SHA-256 of the manifest."""
        self.name = name or self.model_id
        for file, sha256 in self.manifest.files.items():
            if verify and (files is None or file in files):
                verify_file(path / file, sha256)
        self._client = TensorFile(path / CLIENT_FILE)
        self._embedding = self._stored_embedding()
        self._refs = {(ref.layer, ref.kind): ref for ref in self.manifest.units}
        self._refs_by_hash = {ref.sha256: ref for ref in self.manifest.units}
        self._units: dict[UnitRef, Unit] = {}
        self._lock = threading.Lock()

    @property
    def model_id_bytes(self) -> bytes:
        """The model id as it is sent: 32 bytes."""
        return bytes.fromhex(self.model_id)

    @property
    def config(self) -> ModelConfig:
        """The architecture."""
        return self.manifest.config

    @property
    def units(self) -> list[UnitRef]:
        """Every unit, in the order in which they are applied."""
        return list(self.manifest.units)

    def unit(self, layer: int | None, kind: UnitKind) -> Unit:
        """A unit, mapped into memory; the head's layer is None.

        Raises:
            CorruptModelError: its file is damaged.
        """
        return self._load(self._refs[layer, kind])

    def unit_by_hash(self, sha256: bytes) -> Unit | None:
        """The unit whose file has this hash; None if the model has no such unit."""
        ref = self._refs_by_hash.get(sha256)
        return None if ref is None else self._load(ref)

    def unload(self, refs: Iterable[UnitRef]) -> None:
        """Free units; they are mapped again when they are asked for."""
        with self._lock:
            for ref in refs:
                self._units.pop(ref, None)

    def _load(self, ref: UnitRef) -> Unit:
        with self._lock:
            unit = self._units.get(ref)
            if unit is None:
                unit = self._units[ref] = self._open_unit(ref)
            return unit

    def _open_unit(self, ref: UnitRef) -> Unit:
        return load_unit(self.path / UNITS_FOLDER, ref, self._bias(ref), self._verify)

    def holds(self, ref: UnitRef) -> bool:
        """Whether the weights of a unit are here."""
        return True

    @property
    def is_whole(self) -> bool:
        """Whether the weights of every unit are here."""
        return all(self.holds(ref) for ref in self.manifest.units)

    @property
    def held_bytes(self) -> int:
        """Size of the units whose weights are here."""
        return sum(ref.num_bytes for ref in self.manifest.units if self.holds(ref))

    @property
    def checks_bytes(self) -> int:
        """Size of the checks on the disk that replace weights."""
        return 0

    def check_of(self, ref: UnitRef) -> UnitCheck | None:
        """The check of a unit whose weights were dropped; None if its weights are here.

        Raises:
            CorruptModelError: it is damaged.
        """
        return None

    def confirm(self, ref: UnitRef) -> None:
        """Read the file with which a unit's results are checked again.

        Raises:
            CorruptModelError: it has changed since the model was stored.
        """
        path = unit_path(self.path / UNITS_FOLDER, ref.sha256)
        if sha256_file(path) != ref.sha256:
            raise CorruptModelError(f"{path} has changed since it was imported: import the model again")

    def embedding_rows(self, token_ids: Sequence[int]) -> Floats:
        """Embeddings of tokens: f32[T, D].

        Raises:
            PromptError: a token is not in the vocabulary.
        """
        ids = np.asarray(token_ids, dtype=np.int64)
        if ids.size and not 0 <= ids.min() <= ids.max() < self.config.vocab_size:
            raise PromptError(f"a token id is outside 0..{self.config.vocab_size - 1}; use the model's own tokenizer")
        return widen(self._embedding[ids], self._client.tensors[EMBEDDING].dtype)

    def norm(self, layer: int, name: str) -> Floats:
        """Gain of a layer's norm: `attention` and `mlp` f32[D], `q` and `k` f32[d], or of all heads together."""
        config = self.config
        heads = {"q": config.num_heads, "k": config.num_kv_heads}
        if name not in heads:
            return self._float_tensor(norm_key(layer, name), config.hidden_size)
        size = config.head_dim * (heads[name] if config.qk_norm_whole else 1)
        return self._float_tensor(norm_key(layer, name), size)

    @property
    def final_norm(self) -> Floats:
        """Gain of the norm before the head: f32[D]."""
        return self._float_tensor("final_norm", self.config.hidden_size)

    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, shared."""
        return self._tokenizer

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.from_folder(self.path)

    @cached_property
    def guide_tokens(self) -> GuideTokens:
        """The tokens as grammars need them. Raises PromptError where this tokenizer allows no grammar."""
        from node.model.guide import GuideTokens

        return GuideTokens(self._tokenizer, self.config.vocab_size, self._tokenizer.end_ids(self.config))

    @cached_property
    def chat_template(self) -> ChatTemplate | None:
        """The chat template; None for a model that only completes text."""
        if template_source(self.path, tokenizer_config(self.path)) is None:
            return None
        from node.model.template import ChatTemplate  # jinja2: only chats need it

        return ChatTemplate.from_folder(self.path)

    @cached_property
    def generation_config(self) -> dict[str, Any]:
        """The sampling defaults that came with the model."""
        path = self.path / "generation_config.json"
        return read_json_object(path) if path.exists() else {}

    def _bias(self, ref: UnitRef) -> Floats | None:
        if ref.layer is None or not self.config.has_bias(ref.kind):
            return None
        return self._float_tensor(bias_key(ref.layer, ref.kind), ref.num_outputs)

    def _float_tensor(self, name: str, size: int) -> Floats:
        """A tensor of so many numbers; whoever made the model could have stored any number of them."""
        info = self._client.tensors.get(name)
        if info is None:
            raise CorruptModelError(f"{self._client.path} lacks {name}; import the model again")
        if info.shape != (size,):
            raise CorruptModelError(
                f"{self._client.path} has a {name} of shape {list(info.shape)} instead of [{size}]: the model is "
                "damaged or was made to do harm; import it again from a source that you trust"
            )
        return self._client.rows(name, 0, info.shape[0])

    def _stored_embedding(self) -> np.ndarray[Any, np.dtype[np.generic]]:
        info = self._client.tensors.get(EMBEDDING)
        if info is None or info.shape != (self.config.vocab_size, self.config.hidden_size):
            raise CorruptModelError(f"{self._client.path} has no embedding of the model's shape; import it again")
        return self._client.raw(EMBEDDING)


def _read_manifest(path: Path) -> Manifest:
    """The manifest of a model folder; the folder's name must be the manifest's hash."""
    if not (path / MANIFEST_FILE).exists():
        raise ModelNotFoundError(f"no model at {path}; see `kekahyde-node models`, or import one")
    content = read_bounded(path / MANIFEST_FILE, MAX_MANIFEST_BYTES)
    actual = model_id_of(content)
    if actual != path.name:
        raise CorruptModelError(
            f"{path / MANIFEST_FILE} is damaged: its SHA-256 is {actual}, the folder is {path.name}; "
            "import the model again"
        )
    return Manifest.decode(content, str(path / MANIFEST_FILE))
