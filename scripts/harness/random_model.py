"""Models of any shape with random weights, written block by block: to measure with what no test could hold."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from node.model.config import ModelConfig
from node.store.hf.config import parse_config
from node.store.hf.layout import EMBEDDING, FINAL_NORM, HEAD, layer_shapes
from node.store.importer import import_weights
from protocol.linear.field import Floats

SHAPES: dict[str, dict[str, Any]] = {
    "135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "1.1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_key_value_heads": 4},
    "3b": {"hidden_size": 3200, "intermediate_size": 8640, "num_hidden_layers": 26, "num_key_value_heads": 32},
}
"""As SmolLM2-135M, TinyLlama and OpenLLaMA 3B are; 32000 tokens, and 32 heads if not said."""
COMMON: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
BLOCK_ROWS = 512


class RandomWeights:
    """A `WeightSource` of random numbers, the same for one name every time."""

    embedding, head, embedding_dtype = EMBEDDING, HEAD, "F16"

    def __init__(self, folder: Path, raw: dict[str, Any]) -> None:
        self.folder = folder
        self.config: ModelConfig = parse_config(raw, {}, "a random model")
        words = {f"w{number}": number for number in range(256)}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps({}))
        self._shapes = {name: shape for layer in range(self.config.num_layers) for name, shape in self._of(layer)}
        widest = max(self.config.hidden_size, self.config.intermediate_size)
        self._block = np.random.default_rng(1).standard_normal((BLOCK_ROWS, widest), dtype=np.float32) * 0.02

    def _of(self, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        return iter(layer_shapes(self.config, layer))

    def embedding_blocks(self, num_rows: int) -> Iterator[bytes]:
        for start in range(0, self.config.vocab_size, num_rows):
            stop = min(start + num_rows, self.config.vocab_size)
            yield self.rows(EMBEDDING, start, stop).astype("<f2").tobytes()

    def tensor(self, name: str) -> Floats:
        if name == FINAL_NORM or len(self._shapes.get(name, ())) == 1:
            return np.ones(self.config.hidden_size, dtype=np.float32)
        return self.rows(name, 0, self._shapes[name][0])

    def rows(self, name: str, start: int, stop: int) -> Floats:
        width = self._shapes[name][1] if name in self._shapes else self.config.hidden_size
        own = np.float32(1 + zlib.crc32(name.encode()) / 2**34)  # no two tensors are the same
        return np.ascontiguousarray(self._block[np.arange(start, stop) % BLOCK_ROWS, :width] * own)


def write_random_model(shape: str, folder: Path, models_dir: Path) -> str:
    """A model of a shape under its name; its id."""
    folder.mkdir(parents=True, exist_ok=True)
    return import_weights(RandomWeights(folder, {**COMMON, **SHAPES[shape]}), models_dir, shape).model_id


def made_models(folder: Path, shape: str) -> Path:
    """A folder of models in `folder` with one model, of a shape."""
    write_random_model(shape, folder / "source", folder / "models")
    return folder / "models"
