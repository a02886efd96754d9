"""Text to token ids and back, for the `tokenizer.json` of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer as RustTokenizer

from node.errors import CorruptModelError, ModelError, ModelNotFoundError, PromptError, UnsupportedModelError
from node.model.config import MAX_VOCABULARY, ModelConfig
from node.model.named_tokens import added_tokens, special_tokens, tokenizer_config
from node.model.text_stream import TextStream

TOKENIZER_FILE = "tokenizer.json"
CONTEXT_TOKENS = 16
"""A stream looks at so many tokens of a context: more than a character has, so it never begins inside one."""


class Tokenizer:
    """A Hugging Face tokenizer; thread-safe, because it holds no state of a text.

    Raises:
        UnsupportedModelError: its text cannot be decoded token by token.
        CorruptModelError: an id is larger than any vocabulary: the library counts to it when it writes itself down.
    """

    def __init__(self, rust: RustTokenizer, end_word: str | None = None) -> None:
        """`end_word`: the word of the token that ends a text, where the checkpoint's files name one."""
        self._rust = rust
        end_id: int | None = None if end_word is None else rust.token_to_id(end_word)
        self._end_ids: tuple[int, ...] = () if end_id is None else (end_id,)
        rust.no_truncation()
        rust.no_padding()
        added = rust.get_added_tokens_decoder()
        self.special_words: dict[int, str] = {i: token.content for i, token in added.items() if token.special}
        """The words of special tokens by id; they are not part of any text."""
        if any(token_id >= MAX_VOCABULARY for token_id in rust.get_vocab(with_added_tokens=True).values()):
            raise CorruptModelError(f"its tokenizer has ids above {MAX_VOCABULARY}; fetch the model again")
        kinds = set(_decoder_kinds(None if rust.decoder is None else json.loads(rust.decoder.__getstate__())))
        self._is_byte_level = "ByteLevel" in kinds
        if self._is_byte_level and kinds - {"Sequence", "ByteLevel", "Fuse"}:
            mixed = ", ".join(sorted(kinds - {"Sequence"}))
            raise UnsupportedModelError(f"its tokenizer's decoder mixes {mixed}; choose a model whose decoder is one")
        self._byte_of = _byte_fallback_ids(rust) if "ByteFallback" in kinds else {}

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """The tokenizer of a checkpoint or of an imported model, with the tokens that other files name.

        Raises:
            ModelNotFoundError: there is no `tokenizer.json`.
            CorruptModelError: it, or another file that names its tokens, cannot be read.
            UnsupportedModelError: its text cannot be streamed.
        """
        path = folder / TOKENIZER_FILE
        if not path.exists():
            raise ModelNotFoundError(f"{path} is missing; fetch the model's tokenizer too")
        try:
            rust, named = RustTokenizer.from_file(str(path)), tokenizer_config(folder)
            known = {token.content for token in rust.get_added_tokens_decoder().values()}
            rust.add_tokens([token for token in added_tokens(named, folder) if token.content not in known])
            return cls(rust, special_tokens(named).get("eos_token"))
        except CorruptModelError:
            raise
        except UnsupportedModelError as exc:
            raise UnsupportedModelError(f"{path}: {exc}") from exc
        except BaseException as exc:  # the library raises bare Exception for anything it cannot parse, or panics
            raise_unless_failed(exc)
            raise CorruptModelError(f"{path} is not a tokenizer ({exc}); fetch the model again") from exc

    @property
    def vocab_size(self) -> int:
        """Number of ids that the tokenizer knows, with special tokens."""
        return int(self._rust.get_vocab_size(with_added_tokens=True))

    @property
    def numbers(self) -> dict[str, int]:
        """The id of every token that the tokenizer knows, by its word."""
        return dict(self._rust.get_vocab(with_added_tokens=True))

    def end_ids(self, config: ModelConfig) -> tuple[int, ...]:
        """Tokens that end an answer: those that the configuration names, or else the one of the tokenizer's files."""
        return config.eos_ids or self._end_ids

    def as_json(self) -> str:
        """What `tokenizer.json` holds, with the tokens that other files name."""
        text: str = self._rust.to_str()
        return text

    def piece(self, token_id: int) -> bytes:
        """The bytes that a token stands for in the middle of a text; those of its word for a special token."""
        if token_id in self.special_words:
            return self.special_words[token_id].encode()
        exact = self._bytes(token_id)
        if exact is not None:
            return exact
        return self.word(token_id).replace("\u2581", " ").encode()  # type: ignore[union-attr]

    def word(self, token_id: int) -> str | None:
        """A token as written in `tokenizer.json`; None for an unknown id."""
        word: str | None = self._rust.id_to_token(token_id) if 0 <= token_id < 1 << 32 else None
        return word

    def id_of(self, word: str) -> int | None:
        """The id of a token as written in `tokenizer.json`; None for an unknown one."""
        token_id: int | None = self._rust.token_to_id(word)
        return token_id

    def encode(self, text: str, add_special: bool = True) -> list[int]:
        """Token ids of a text, with the special tokens that the model expects around it.

        Raises:
            PromptError: the tokenizer has no token for a part of it.
        """
        try:
            ids: list[int] = self._rust.encode(text, add_special_tokens=add_special).ids
        except BaseException as exc:  # the library raises bare Exception where there is no <unk>, or panics
            raise_unless_failed(exc)
            raise PromptError(f"the model's tokenizer cannot read this text ({exc}); change it") from exc
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens, without special tokens; invalid UTF-8 is replaced by U+FFFD."""
        stream = self.stream()
        return "".join([*map(stream.push, token_ids), stream.finish()])

    def stream(self, context: Sequence[int] = ()) -> TextStream:
        """Text for tokens that come one by one.

        Args:
            context: tokens before the first one, whose text is continued. Without them a new text begins, and a
                tokenizer that marks words with a leading space drops the first space.
        """
        stream = TextStream(self._text, self._bytes)
        for token_id in self._tail(context):
            stream.push(token_id)
        return stream

    def _text(self, token_ids: Sequence[int]) -> str:
        try:
            text: str = self._rust.decode(list(token_ids), skip_special_tokens=True)
        except BaseException as exc:
            raise_unless_failed(exc)
            raise ModelError(f"the model's tokenizer cannot write its tokens ({exc}); use another model") from exc
        return text

    def _bytes(self, token_id: int) -> bytes | None:
        """The bytes of a token, for `TextStream`. The library replaces a whole run of byte tokens if it is not valid
        UTF-8; we do not, because that would be known only at the end of the run."""
        word = self.word(token_id)
        if word is None or token_id in self.special_words:
            return b""  # a model may have more tokens than its tokenizer
        if self._is_byte_level:
            values = [_BYTE_OF_LETTER.get(letter) for letter in word]
            return word.encode() if None in values else bytes(value for value in values if value is not None)
        return self._byte_of.get(token_id)

    def _tail(self, context: Sequence[int]) -> list[int]:
        """The end of `context` that the text after it may depend on."""
        tail: list[int] = []
        for token_id in reversed(context):
            if len(tail) == CONTEXT_TOKENS:
                break
            if token_id not in self.special_words:
                tail.append(token_id)
        return tail[::-1]


def raise_unless_failed(exc: BaseException) -> None:
    """Raises an error again that is none of a library's. A panic of one in Rust is no Exception, and has no module to
    import it from; where nobody catches it, it ends a thread of the node."""
    if not isinstance(exc, Exception) and type(exc).__name__ != "PanicException":
        raise exc


def _letters() -> Iterator[tuple[str, int]]:
    """GPT-2's printable letter of every byte."""
    others = 256
    for byte in range(256):
        if 33 <= byte <= 126 or 161 <= byte <= 172 or byte >= 174:
            yield chr(byte), byte
        else:
            yield chr(others), byte
            others += 1


_BYTE_OF_LETTER = dict(_letters())


def _decoder_kinds(decoder: object) -> Iterator[str]:
    """The types of a decoder and of all its parts."""
    if isinstance(decoder, dict):
        yield str(decoder.get("type"))
        for part in decoder.get("decoders") or ():
            yield from _decoder_kinds(part)


def _byte_fallback_ids(rust: RustTokenizer) -> dict[int, bytes]:
    """The bytes of the tokens `<0x00>` to `<0xFF>`, by id."""
    ids = ((rust.token_to_id(f"<0x{byte:02X}>"), bytes([byte])) for byte in range(256))
    return {token_id: piece for token_id, piece in ids if token_id is not None}
