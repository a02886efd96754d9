"""Text to token ids and back, for the `tokenizer.json` of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer as RustTokenizer

from node.errors import CorruptModelError, ModelNotFoundError
from node.model.text_stream import TextStream

TOKENIZER_FILE = "tokenizer.json"
CONTEXT_TOKENS = 16
"""Ordinary tokens of a context that a stream looks at: four characters of four tokens each."""


class Tokenizer:
    """A Hugging Face tokenizer; safe to share between threads, as it holds no state of a text."""

    def __init__(self, rust: RustTokenizer) -> None:
        self._rust = rust
        rust.no_truncation()
        rust.no_padding()
        self._special_ids = frozenset(
            token_id for token_id, token in rust.get_added_tokens_decoder().items() if token.special
        )
        self._byte_ids = _byte_fallback_ids(rust)

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """The tokenizer of a checkpoint or of an imported model.

        Raises:
            ModelNotFoundError: there is no `tokenizer.json`.
            CorruptModelError: it cannot be read.
        """
        path = folder / TOKENIZER_FILE
        if not path.exists():
            raise ModelNotFoundError(f"{path} is missing; fetch the model's tokenizer too")
        try:
            return cls(RustTokenizer.from_file(str(path)))
        except Exception as exc:  # the library raises bare Exception for whatever it cannot parse
            raise CorruptModelError(f"{path} is not a tokenizer ({exc}); fetch the model again") from exc

    @property
    def vocab_size(self) -> int:
        """Ids that the tokenizer knows, special tokens included."""
        return int(self._rust.get_vocab_size(with_added_tokens=True))

    def word(self, token_id: int) -> str | None:
        """How `tokenizer.json` spells a token; None for an id that it does not know."""
        word: str | None = self._rust.id_to_token(token_id) if 0 <= token_id < 1 << 32 else None
        return word

    def encode(self, text: str, add_special: bool = True) -> list[int]:
        """Token ids of a text, with the special tokens around it that the model was trained with."""
        ids: list[int] = self._rust.encode(text, add_special_tokens=add_special).ids
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens, special ones skipped and incomplete UTF-8 replaced by U+FFFD."""
        text: str = self._rust.decode(list(token_ids), skip_special_tokens=True)
        return text

    def stream(self, context: Sequence[int] = ()) -> TextStream:
        """Text for tokens that come one by one.

        Args:
            context: tokens before the first one: the text continues theirs. Without them it starts afresh, and a
                tokenizer that marks words by a space before them drops the first space.
        """
        stream = TextStream(self.decode, self._special_ids, self._byte_ids)
        for token_id in _tail(context, self._special_ids | self._byte_ids):
            stream.push(token_id)
        return stream


def _byte_fallback_ids(rust: RustTokenizer) -> frozenset[int]:
    """Ids of the tokens `<0x00>` to `<0xFF>`, where the decoder joins runs of them to characters."""
    if "ByteFallback" not in json.dumps(json.loads(rust.to_str())["decoder"]):
        return frozenset()
    ids = (rust.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
    return frozenset(token_id for token_id in ids if token_id is not None)


def _tail(context: Sequence[int], unsettled: frozenset[int]) -> Sequence[int]:
    """The end of `context` that decoding may still depend on, with enough before it to settle.

    Where it begins in the middle of a character, that one is settled (and dropped) within the next character, which
    is at most four tokens long.
    """
    ordinary = [i for i, token_id in enumerate(context) if token_id not in unsettled][-CONTEXT_TOKENS:]
    return context[ordinary[0] :] if ordinary else context
