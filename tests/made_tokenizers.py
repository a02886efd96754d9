"""Small tokenizers of each kind."""

from __future__ import annotations

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as RustTokenizer

from node.model.tokenizer import Tokenizer


def byte_level_tokenizer() -> Tokenizer:
    """One token a byte, as in GPT-2, Llama 3 and Qwen."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    rust = RustTokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    rust.decoder = decoders.ByteLevel()
    rust.add_special_tokens([AddedToken("<|end|>", special=True)])
    rust.add_tokens([AddedToken("<think>", special=False)])
    return Tokenizer(rust)


def byte_fallback_tokenizer() -> Tokenizer:
    """Words that carry their space, and bytes for everything else, as in Llama 2."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += ["▁", "▁the", "▁cat", "s", "▁▁", "é", "\ufffd", "a"]
    vocabulary = {word: i for i, word in enumerate(words)}
    rust = RustTokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    rust.add_special_tokens([AddedToken(word, special=True) for word in words[:3]])
    rust.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Tokenizer(rust)


def metaspace_tokenizer() -> Tokenizer:
    words = ["<unk>", "▁the", "▁cat", "s", "▁", "é"]
    rust = RustTokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], unk_token="<unk>"))
    rust.decoder = decoders.Metaspace()
    return Tokenizer(rust)


TOKENIZERS = {
    "byte-level": byte_level_tokenizer(),
    "byte-fallback": byte_fallback_tokenizer(),
    "metaspace": metaspace_tokenizer(),
}
