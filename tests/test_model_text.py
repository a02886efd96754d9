"""Tokenizer, streamed text, stop strings and chat templates."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_tokenizers import TOKENIZERS, byte_fallback_tokenizer, byte_level_tokenizer
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models

from node.errors import CorruptModelError, ModelNotFoundError, PromptError, UnsupportedModelError
from node.model.stops import StopMatcher
from node.model.tokenizer import _BYTE_OF_LETTER, Tokenizer


def streamed(tokenizer: Tokenizer, ids: list[int], context: list[int]) -> list[str]:
    stream = tokenizer.stream(context)
    return [*(stream.push(token_id) for token_id in ids), stream.finish()]


def rust_text(tokenizer: Tokenizer, ids: list[int]) -> str:
    """The library's decoding, but for runs of byte tokens that are no UTF-8: of those it spoils what is."""
    text: str = tokenizer._rust.decode(ids, skip_special_tokens=True)
    if tokenizer is not TOKENIZERS["byte-fallback"]:
        return text
    words = [tokenizer.word(token_id) or "" for token_id in ids if token_id > 2]
    content = b"".join(
        bytes([int(word[3:5], 16)]) if word.startswith("<0x") else word.replace("▁", " ").encode() for word in words
    )
    return content.decode(errors="replace").removeprefix(" ")


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_stream_is_the_decoding_of_the_whole(name: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=20))
    assert "".join(streamed(tokenizer, ids, [])) == rust_text(tokenizer, ids) == tokenizer.decode(ids)


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=8), starts=st.lists(st.sampled_from(["▁the", "▁", "<0x20>", "s", "<0x0A>"]), max_size=3))
def test_well_formed_bytes_are_decoded_as_by_the_library(text: str, starts: list[str]) -> None:
    tokenizer = TOKENIZERS["byte-fallback"]
    vocabulary = tokenizer._rust.get_vocab()
    ids = [*(vocabulary[word] for word in starts), *tokenizer.encode(text, add_special=False)]
    assert tokenizer.decode(ids) == tokenizer._rust.decode(ids)


def byte_tokens(name: str, content: bytes) -> list[int]:
    """One token for each byte."""
    spelled = {"byte-fallback": "<0x{:02X}>".format, "byte-level": lambda byte: byte_letter(byte)}[name]
    ids = [TOKENIZERS[name]._rust.token_to_id(spelled(byte)) for byte in content]
    assert None not in ids
    return ids


def byte_letter(byte: int) -> str:
    return next(letter for letter, value in _BYTE_OF_LETTER.items() if value == byte)


@pytest.mark.parametrize("name", ["byte-level", "byte-fallback"])
@settings(max_examples=200, deadline=None)
@given(content=st.one_of(st.binary(max_size=24), st.text(max_size=10).map(str.encode)))
def test_bytes_are_text_as_soon_as_no_character_can_be_pending(name: str, content: bytes) -> None:
    """After each byte all is out but the three at most that may be the beginning of a character."""
    stream, out = TOKENIZERS[name].stream(TOKENIZERS[name].encode("s")), ""
    for count, token_id in enumerate(byte_tokens(name, content), 1):
        out += stream.push(token_id)
        so_far = content[:count]
        for pending in range(4):  # a character is pending where bytes could still make it whole
            certain = so_far[: count - pending].decode(errors="replace")
            if out == certain:
                tail = so_far[count - pending :]
                break
        else:
            raise AssertionError(f"{out!r} lags behind {so_far!r}")
        assert not tail or any(is_character(tail + rest) for rest in CONTINUATIONS), "it waits for nothing"
    assert out + stream.finish() == content.decode(errors="replace")


CONTINUATIONS = [
    bytes([first, *more]) for first in (0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF) for more in ((), (0x80,), (0x80, 0x80))
]


def is_character(content: bytes) -> bool:
    """Half a surrogate pair is none, but Python's decoder waits for its third byte before it says so."""
    try:
        return len(content.decode(errors="surrogatepass")) == 1
    except UnicodeDecodeError:
        return False


@pytest.mark.parametrize("name", ["byte-level", "byte-fallback"])
@pytest.mark.parametrize("content", [b"\x80\x81\x82", "\ufffd".encode(), b"\xf0\x9f", "日".encode(), b"\xac\xe2\x82"])
def test_no_bytes_make_a_stream_slow(name: str, content: bytes) -> None:
    """What is decoded for a token does not depend on how many came before it."""
    tokenizer, decoded = TOKENIZERS[name], 0
    stream = tokenizer.stream()

    def counted(ids: Sequence[int]) -> str:
        nonlocal decoded
        decoded += len(ids)
        return tokenizer._text(ids)

    stream._decode = counted  # type: ignore[method-assign]
    ids = byte_tokens(name, content * 700)
    texts = [stream.push(token_id) for token_id in ids]
    assert decoded <= 2 * len(ids)
    silences = [len(list(group)) for is_text, group in groupby(texts, bool) if not is_text]
    assert max(silences, default=0) <= 3, "text comes all the time"


def test_a_real_replacement_sign_is_a_character_like_any_other() -> None:
    tokenizer = TOKENIZERS["byte-fallback"]
    sign = tokenizer._rust.token_to_id("\ufffd")
    assert streamed(tokenizer, [sign, sign], []) == ["\ufffd", "\ufffd", ""]


def test_ids_that_the_tokenizer_lacks_are_no_text() -> None:
    tokenizer = TOKENIZERS["byte-fallback"]
    the = tokenizer._rust.token_to_id("▁the")
    assert tokenizer.decode([the, tokenizer.vocab_size + 5, the]) == "the the"


def test_a_decoder_that_mixes_bytes_with_more_is_refused(tmp_path: Path) -> None:
    rust = byte_level_tokenizer()._rust
    rust.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    rust.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UnsupportedModelError, match="mixes ByteLevel, Strip"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize("name", ["byte-level", "byte-fallback"])
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=12), cut=st.integers(0, 30))
def test_stream_never_gives_half_a_character(name: str, text: str, cut: int) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text.replace("\ufffd", "?"), add_special=False)
    pieces = streamed(tokenizer, ids, [])
    assert "\ufffd" not in "".join(pieces)
    context, rest = ids[:cut], ids[cut:]
    settled = "".join(streamed(tokenizer, context, [])[:-1])
    assert settled + "".join(streamed(tokenizer, rest, context)) == "".join(pieces)


def test_stream_continues_its_context_with_the_space() -> None:
    tokenizer = byte_fallback_tokenizer()
    the, cat = (tokenizer._rust.get_vocab()[word] for word in ("▁the", "▁cat"))
    assert "".join(streamed(tokenizer, [cat], [])) == "cat"
    assert "".join(streamed(tokenizer, [cat], [1, the])) == " cat"
    assert "".join(streamed(tokenizer, [2, cat], [1, the, 2])) == " cat"


def test_streamed_characters_come_as_soon_as_they_are_whole() -> None:
    tokenizer = byte_level_tokenizer()
    assert streamed(tokenizer, tokenizer.encode("a€b"), []) == ["a", "", "", "€", "b", ""]


def test_a_text_that_the_tokenizer_cannot_read_is_a_prompt_error() -> None:
    tokenizer = Tokenizer(RustTokenizer(models.WordLevel({"the": 0}, unk_token="<unk>")))
    assert tokenizer.encode("the") == [0]
    with pytest.raises(PromptError, match="cannot read this text"):
        tokenizer.encode("cat")


def test_missing_and_damaged_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"tokenizer\.json is missing"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CorruptModelError, match="is not a tokenizer"):
        Tokenizer.from_folder(tmp_path)


def matched(strings: list[str], pieces: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(strings)
    text = "".join(matcher.push(piece) for piece in pieces) + matcher.finish()
    return text, matcher.stopped


def test_stop_string_across_tokens() -> None:
    assert matched(["\nUser:"], ["Hi.", "\n", "Us", "er", ": you"]) == ("Hi.", True)
    assert matched(["\nUser:"], ["Hi.", "\n", "Us", "ual"]) == ("Hi.\nUsual", False)
    assert matched([], ["all"]) == ("all", False)
    assert matched(["aab"], list("aaab!")) == ("a", True)


@settings(max_examples=150, deadline=None)
@given(
    strings=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    text=st.text("abc", max_size=16),
    cuts=st.lists(st.integers(0, 16), max_size=5),
)
def test_stop_strings_do_not_depend_on_the_pieces(strings: list[str], text: str, cuts: list[int]) -> None:
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:stop] for start, stop in pairwise(borders)]
    result, stopped = matched(strings, pieces)
    assert (result, stopped) == matched(strings, list(text))
    assert stopped == any(string in text for string in strings)
    assert text.startswith(result) and (stopped or result == text)
    assert not any(string in result for string in strings)


WORDS = ["<x>", "<a>"]
SPELLED = st.sampled_from(["a", "b", "<", "x", ">", *WORDS])


@settings(max_examples=400, deadline=None)
@given(
    strings=st.lists(st.lists(SPELLED, min_size=1, max_size=4).map("".join), max_size=3),
    tokens=st.lists(
        st.one_of(SPELLED.map(lambda text: (text, False)), st.sampled_from([(word, True) for word in WORDS]))
    ),
)
def test_stop_strings_may_hold_words_of_special_tokens(strings: list[str], tokens: list[tuple[str, bool]]) -> None:
    def pushed(pieces: list[tuple[str, bool]]) -> tuple[str, bool]:
        matcher = StopMatcher(strings, WORDS)
        out = "".join(matcher.push_word(text) if is_word else matcher.push(text) for text, is_word in pieces)
        return out + matcher.finish(), matcher.stopped

    pieces = [(part, is_word) for text, is_word in tokens for part in ([text] if is_word else text)]
    out, stopped = pushed(tokens)
    assert (out, stopped) == pushed(pieces)
    shown = "".join(text for text, is_word in tokens if not is_word)
    symbols = "".join(text.replace("<x>", "1").replace("<a>", "2") if is_word else text for text, is_word in tokens)
    worded = [string.replace("<x>", "1").replace("<a>", "2") for string in strings]
    assert stopped == any(string in shown or word in symbols for string, word in zip(strings, worded, strict=True))
    assert shown.startswith(out) and (stopped or out == shown)


def test_special_tokens_without_end_are_not_kept() -> None:
    matcher = StopMatcher(["ab", "a<x><y>"], ["<x>", "<y>"])
    assert matcher.push("a") == ""
    for _ in range(1000):
        assert matcher.push_word("<x>") == ""
        assert len(matcher._held) <= 1 + len("a<x><y>")
    assert (matcher.push_word("<y>"), matcher.stopped) == ("", False)
    assert (matcher.push("b"), matcher.stopped) == ("", True)


def test_real_tokenizer_round_trip() -> None:
    folder = Path(__file__).parents[2] / "shared" / "models"
    folder = Path(os.environ.get("KEKAHYDE_TEST_MODELS", folder)) / "stories260K"
    if not folder.exists():
        pytest.skip(f"no model at {folder}")
    tokenizer = Tokenizer.from_folder(folder)
    text = "Once upon a time, Lily said: \u201cça va?\u201d 🙂"
    ids = tokenizer.encode(text)
    assert ids[0] == 1 and tokenizer.decode(ids) == text
    assert "".join(streamed(tokenizer, ids, [])) == text
