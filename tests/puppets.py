"""Checkpoints whose greedy next token is a fixed function of the last one: for all that depends on which tokens come.

Attention and MLP add nothing, embedding and head are one-hot, so the head alone says what follows what.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from node.store.hf.config import parse_config
from node.store.hf.layout import EMBEDDING, HEAD, tensor_shapes

LETTERS: dict[int, str] = {}
"""GPT-2's letter of each byte."""
LETTERS.update({byte: chr(byte) for byte in (*range(33, 127), *range(161, 173), *range(174, 256))})
LETTERS.update({byte: chr(256 + i) for i, byte in enumerate(sorted(set(range(256)) - LETTERS.keys()))})


def byte_tokenizer(special: Sequence[str] = (), pieces: Sequence[bytes] = ()) -> Tokenizer:
    """One token a byte under the byte's own number, then `pieces` of several bytes, then the special ones."""
    words = [*(bytes([byte]) for byte in range(256)), *pieces]
    vocabulary = {"".join(LETTERS[byte] for byte in word): i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return tokenizer


def write_puppet(
    folder: Path,
    follows: Mapping[int, int],
    special: Sequence[str] = (),
    vocab_size: int | None = None,
    config: Mapping[str, Any] | None = None,
    tokenizer_config: Mapping[str, Any] | None = None,
    words: Sequence[str] = (),
) -> Path:
    """Write a checkpoint into `folder`.

    Args:
        follows: of a token's id, the id that comes after it; after any other comes 0.
        special: texts of the tokens with ids from 256 on.
        words: texts of ordinary tokens after them; a text in which they occur is always made of them.
        vocab_size: rows of the embedding; fewer than the tokenizer has tokens makes tokens that the model lacks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_tokenizer(special)
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in words])
    tokenizer.save(str(folder / "tokenizer.json"))
    rows = vocab_size or 256 + len(special) + len(words)
    raw = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64 * ((rows + 63) // 64),
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": rows,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "eos_token_id": None,
        "bos_token_id": None,
        **(config or {}),
    }
    (folder / "config.json").write_text(json.dumps(raw))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config or {}))
    tensors = {name: _weights(name, shape) for name, shape in tensor_shapes(parse_config(raw, {}, "puppet"))}
    tensors[EMBEDDING][np.arange(rows), np.arange(rows)] = 1.0
    for last, following in follows.items():
        tensors[HEAD][following, last] = 1.0
    save_file(tensors, folder / "model.safetensors")
    return folder


def _weights(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Norms that change nothing, projections that are not zero, outputs that are."""
    if "norm" in name:
        return np.ones(shape, np.float32)
    if name in (EMBEDDING, HEAD) or "o_proj" in name or "down_proj" in name:
        return np.zeros(shape, np.float32)
    return np.random.default_rng(1).normal(0, 0.02, shape).astype(np.float32)
