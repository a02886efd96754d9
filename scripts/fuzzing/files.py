"""Targets: the files of a model, whoever made them."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from node.errors import CorruptModelError, ModelError, PromptError
from node.json_file import read_json_object
from node.model.template import ChatTemplate
from node.model.tokenizer import Tokenizer
from node.store.gguf.checkpoint import GgufCheckpoint
from node.store.hf.checkpoint import open_checkpoint
from node.store.hf.config import parse_config
from node.store.importer import import_checkpoint
from node.store.manifest import MANIFEST_FILE, Manifest
from scripts.fuzzing import tiny_model
from scripts.fuzzing.forms import CBOR, JSON, SAFETENSORS
from scripts.fuzzing.target import Target

TEXT = "a b ab \u00e9\u4e16 <s> <|end|> 12"
MESSAGES = [
    {"role": "system", "content": "a"},
    {"role": "user", "content": "x b"},
    {"role": "assistant", "content": ""},
]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


@functools.cache
def scratch() -> Path:
    """A folder in memory where there is one: every input is written to it as a file."""
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="kekahyde-fuzz-", dir=shared if shared.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def checkpoint_folder() -> Path:
    """A whole checkpoint; targets replace one file of it."""
    return tiny_model.write_checkpoint(scratch() / "checkpoint")


@contextlib.contextmanager
def replaced(name: str, content: bytes) -> Iterator[Path]:
    """The checkpoint with other bytes in one of its files."""
    folder = checkpoint_folder()
    before = (folder / name).read_bytes()
    (folder / name).write_bytes(content)
    try:
        yield folder
    finally:
        (folder / name).write_bytes(before)


def read_manifest(data: bytes) -> None:
    """The list of the parts of a model; it has one encoding."""
    assert Manifest.decode(data, "the manifest").encode() == data


def read_config(data: bytes) -> None:
    """A `config.json`; what it says can be said in a manifest."""
    path = scratch() / "config.json"
    path.write_bytes(data)
    config = parse_config(read_json_object(path), {}, "a model")
    assert type(config).from_mapping(config.to_mapping()) == config


def read_weights(data: bytes) -> None:
    """The weights of a checkpoint: the header, and a few rows of all that it describes."""
    with replaced("model.safetensors", data) as folder:
        opened = open_checkpoint(folder)
        for name in ("model.norm.weight", opened.embedding, opened.head):
            opened.rows(name, 0, 2)


def read_index(data: bytes) -> None:
    """The index of a checkpoint in several files."""
    folder = scratch() / "sharded"
    folder.mkdir(exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(checkpoint_folder() / name, folder / name)
    shutil.copy(checkpoint_folder() / "model.safetensors", folder / "one.safetensors")
    (folder / "model.safetensors.index.json").write_bytes(data)
    open_checkpoint(folder)


def read_gguf(data: bytes) -> None:
    """A GGUF file, opened as an import opens it, with its tokenizer."""
    path = scratch() / "model.gguf"
    path.write_bytes(data)
    opened = GgufCheckpoint(path)
    opened.rows(opened.embedding, 0, 1)
    next(opened.embedding_blocks(1))
    use_tokenizer(opened.folder)
    shutil.rmtree(opened.folder)


def read_tokenizer(data: bytes) -> None:
    """A `tokenizer.json`, which then reads and writes a text."""
    with replaced("tokenizer.json", data) as folder:
        use_tokenizer(folder)


def read_tokenizer_config(data: bytes) -> None:
    """A `tokenizer_config.json`: added tokens, special tokens, the chat template."""
    with replaced("tokenizer_config.json", data) as folder:
        use_tokenizer(folder)
        template = ChatTemplate.from_folder(folder)
        if template is not None:
            template.render(MESSAGES)


def use_tokenizer(folder: Path) -> None:
    """Tokens of a text, and their text."""
    tokenizer = Tokenizer.from_folder(folder)
    tokenizer.decode([*tokenizer.encode(TEXT)[:64], 0, 3, 1 << 20])
    tokenizer.piece(3)
    tokenizer.as_json()


def read_template(data: bytes) -> None:
    """A chat template, which then renders messages and tools."""
    template = ChatTemplate(data.decode("utf-8", "replace"), {"eos_token": "</s>"})
    template.render(MESSAGES, tools=TOOLS, values={"enable_thinking": True})


def _manifest_seeds() -> list[bytes]:
    models = scratch() / "models"
    imported = import_checkpoint(checkpoint_folder(), models)
    return [(imported.path / MANIFEST_FILE).read_bytes()]


def _index_seed() -> bytes:
    header = json.loads(tiny_model.safetensors_file()[8:].partition(b"}}")[0] + b"}}")
    names = [name for name in header if name != "__metadata__"]
    return json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, "one.safetensors")}).encode()


def _configs() -> list[bytes]:
    return [json.dumps(family).encode() for family in tiny_model.FAMILIES]


def _tokenizer_config() -> list[bytes]:
    config = tiny_model.tokenizer_config()
    named = [{"name": "default", "template": tiny_model.NAMESPACE}]
    return [json.dumps(one).encode() for one in (config, {"chat_template": named, "image_token": "<i>"})]


def _templates() -> list[bytes]:
    return [tiny_model.TEMPLATE.encode(), tiny_model.NAMESPACE.encode()]


MODEL = (ModelError,)
TEXTS = (ModelError, PromptError)
TARGETS = (
    Target("manifest", "a model's manifest", read_manifest, (CorruptModelError,), _manifest_seeds, CBOR),
    Target("config", "a model's config.json", read_config, MODEL, _configs, JSON),
    Target(
        "safetensors",
        "a checkpoint's weights",
        read_weights,
        MODEL,
        lambda: [tiny_model.safetensors_file()],
        SAFETENSORS,
    ),
    Target("index", "the index of a checkpoint's files", read_index, MODEL, lambda: [_index_seed()], JSON),
    Target("gguf", "a GGUF file", read_gguf, TEXTS, tiny_model.gguf_files),
    Target("tokenizer", "a tokenizer.json", read_tokenizer, TEXTS, tiny_model.tokenizers, JSON),
    Target("tokenizer-config", "a tokenizer_config.json", read_tokenizer_config, TEXTS, _tokenizer_config, JSON),
    Target("template", "a chat template", read_template, TEXTS, _templates),
)
