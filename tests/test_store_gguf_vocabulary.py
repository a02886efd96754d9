"""Vocabularies of GGUF files: text is cut into the tokens that the file means, or the file is refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_gguf import WORDS
from tokenizers import Tokenizer as RustTokenizer

from node.errors import ModelError
from node.store.gguf.vocabulary import tokenizer_files

# --- vocabularies


def with_merges(pre: str, tokens: list[str], merges: list[tuple[str, str]], **more: Any) -> dict[str, Any]:
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
        **more,
    }


def test_byte_level_text_comes_back_and_digits_are_cut_as_the_name_says() -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, "Ġa", "12", "<|end|>"]
    kinds = [*[1] * (len(tokens) - 1), 3]
    metadata = with_merges("smollm", tokens, [("Ġ", "a"), ("1", "2")], **{"tokenizer.ggml.token_type": kinds})
    one_by_one = RustTokenizer.from_str(tokenizer_files(metadata, "x")["tokenizer.json"].decode())
    metadata["tokenizer.ggml.pre"] = "gpt-2"
    together = RustTokenizer.from_str(tokenizer_files(metadata, "x")["tokenizer.json"].decode())
    text = "é a 12<|end|>"
    for tokenizer in (one_by_one, together):
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        assert ids[-1] == len(tokens) - 1
    assert tokens.index("12") in together.encode("12").ids
    assert tokens.index("12") not in one_by_one.encode("12").ids


def pieces_of(text: str, scores: dict[str, float]) -> list[str]:
    """SentencePiece's BPE as its definition says: the neighbours whose join has the best score are joined first."""
    parts = list("▁" + text.replace(" ", "▁"))
    while True:
        joins = [(-scores[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in scores]
        if not joins:
            return parts
        index = min(joins)[1]
        parts[index : index + 2] = [parts[index] + parts[index + 1]]


@given(
    st.lists(st.text("ab▁", min_size=2, max_size=5), max_size=20, unique=True),
    st.text("ab ", min_size=1, max_size=20),
)
@settings(max_examples=200, deadline=None)
def test_sentence_pieces_are_joined_by_their_scores(words: list[str], text: str) -> None:
    tokens = ["<unk>", "a", "b", "▁", *words]
    scores = [0.0, *(-float(index) for index in range(1, len(tokens)))]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": [2, *[1] * (len(tokens) - 1)],
        "tokenizer.ggml.unknown_token_id": 0,
    }
    tokenizer = RustTokenizer.from_str(tokenizer_files(metadata, "x")["tokenizer.json"].decode())
    assert tokenizer.encode(text).tokens == pieces_of(text, dict(zip(tokens, scores, strict=True)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tokenizer.ggml.tokens": None}, "no list of tokens"),
        ({"tokenizer.ggml.tokens": ["a", "a"]}, "twice"),
        ({"tokenizer.ggml.token_type": [1]}, "their kinds do not match"),
        ({"tokenizer.ggml.merges": ["a b c"]}, "does not have two pieces"),
        ({"tokenizer.ggml.merges": 3}, "no list of merges"),
        ({"tokenizer.ggml.pre": "jais-2"}, "pre-tokenizer is 'jais-2'"),
        ({"tokenizer.ggml.eos_token_id": 99}, "its eos token is 99"),
    ],
)
def test_a_vocabulary_that_makes_no_sense_is_refused(changes: dict[str, Any], reason: str) -> None:
    metadata = {**with_merges("gpt-2", ["a", "b"], [("a", "b")]), **changes}
    with pytest.raises(ModelError, match=reason):
        tokenizer_files(metadata, "the file")


def test_words_are_cut_as_the_name_says() -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())

    def cuts(pre: str, text: str) -> list[str]:
        files = tokenizer_files(with_merges(pre, letters, []), "x")
        return [
            piece
            for piece, _ in RustTokenizer.from_str(files["tokenizer.json"].decode()).pre_tokenizer.pre_tokenize_str(
                text
            )
        ]

    assert cuts("llama-bpe", "a 12345 I'LL") == ["a", "Ġ", "123", "45", "ĠI", "'LL"]
    assert cuts("qwen2", "a 123 I'LL") == ["a", "Ġ", "1", "2", "3", "ĠI", "'LL"]
    for digits_apart in ("smollm", "refact", "starcoder"):
        assert cuts(digits_apart, "a 12") == ["a", "Ġ", "1", "2"]
    for as_llama_3 in ("dbrx", "smaug-bpe"):
        assert cuts(as_llama_3, "a 12345 I'LL") == ["a", "Ġ", "123", "45", "ĠI", "'LL"]
    assert cuts("gpt-4o", "aBc 1234 don't//\n") == ["a", "Bc", "Ġ", "123", "4", "Ġdon't", "//Ċ"]
    assert cuts("olmo", "a 12 I'LL") == ["a", "Ġ12", "ĠI", "'", "LL"]
    assert cuts("gpt-2", "a 12 I'LL") == ["a", "Ġ12", "ĠI", "'", "LL"]


def test_a_byte_level_vocabulary_begins_with_bos_where_it_says_so() -> None:
    tokens = ["<s>", "a"]
    metadata = with_merges("gpt-2", tokens, [], **{"tokenizer.ggml.token_type": [3, 1]})
    metadata |= {"tokenizer.ggml.bos_token_id": 0}
    for adds, expected in ((True, [0, 1]), (False, [1])):
        files = tokenizer_files({**metadata, "tokenizer.ggml.add_bos_token": adds}, "x")
        assert RustTokenizer.from_str(files["tokenizer.json"].decode()).encode("a").ids == expected


def test_words_of_the_made_files_are_a_vocabulary() -> None:
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": WORDS,
        "tokenizer.ggml.scores": [-float(index) for index in range(len(WORDS))],
        "tokenizer.ggml.token_type": [2, 3, 3, *[1] * 69, *[6] * 8],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.add_space_prefix": False,
    }
    tokenizer = RustTokenizer.from_str(tokenizer_files(metadata, "x")["tokenizer.json"].decode())
    assert tokenizer.encode("ab").tokens == ["<s>", "a", "b"]
