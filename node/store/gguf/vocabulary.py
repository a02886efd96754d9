"""Turns the vocabulary of a GGUF file into the files of a Hugging Face tokenizer.

Two kinds are supported: `gpt2`, byte-level BPE with its merges, and `llama`, SentencePiece's BPE, whose merges follow
from the scores of its pieces. The file names the pre-tokenizer that cuts text before merging (`tokenizer.ggml.pre`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from node.errors import CorruptModelError, UnsupportedModelError
from node.model.config import MAX_VOCABULARY

_PREFIX = "tokenizer.ggml."
_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 2, 3, 4, 6
"""Kinds of tokens (llama.h, enum llama_token_type)."""

_GPT_2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_LETTERS = {**_GPT_2, "use_regex": False}
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN_2 = _LLAMA_3.replace("{1,3}", "")
_UPPER, _LOWER, _ENDING = (
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]",
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
)
_GPT_4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENDING}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENDING}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


_DIGITS_APART = _sequence({"type": "Digits", "individual_digits": True}, _GPT_2)
_AS_LLAMA_3 = _sequence(_split(_LLAMA_3), _LETTERS)
_PRE: dict[str, tuple[dict[str, Any], bool]] = {
    "default": (_GPT_2, False),
    "gpt-2": (_GPT_2, False),
    "olmo": (_GPT_2, False),
    "smollm": (_DIGITS_APART, False),
    "refact": (_DIGITS_APART, False),
    "starcoder": (_DIGITS_APART, False),
    "llama-bpe": (_AS_LLAMA_3, True),
    "dbrx": (_AS_LLAMA_3, False),
    "smaug-bpe": (_AS_LLAMA_3, False),
    "gpt-4o": (_sequence(_split(_GPT_4O), _LETTERS), False),
    "qwen2": (_sequence(_split(_QWEN_2), _LETTERS), False),
}
"""By the name in the file: how text is cut, as in the tokenizer.json of those models, and whether a word that is a
token is used without merging."""


def tokenizer_files(metadata: Mapping[str, Any], where: str) -> dict[str, bytes]:
    """`tokenizer.json` and `tokenizer_config.json`, the same bytes for the same metadata.

    Raises:
        UnsupportedModelError: this kind of vocabulary is not supported.
        CorruptModelError: its lists do not match.
    """
    tokens, kinds = _tokens(metadata, where)
    model = metadata.get(f"{_PREFIX}model")
    if model == "gpt2":
        tokenizer = _byte_level(metadata, tokens, where)
    elif model == "llama":
        tokenizer = _sentence_piece(metadata, tokens, where)
    else:
        raise UnsupportedModelError(f"{where}: its tokenizer is {model!r}; only gpt2 and llama are supported")
    tokenizer["added_tokens"] = [
        {
            "id": number,
            "content": tokens[number],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind in (_CONTROL, _UNKNOWN),
        }
        for number, kind in enumerate(kinds)
        if kind in (_CONTROL, _USER_DEFINED, _UNKNOWN)
    ]
    bos = _special(metadata, tokens, "bos", where)
    adds_bos = metadata.get(f"{_PREFIX}add_bos_token", model == "llama")
    if adds_bos and bos is not None:
        tokenizer["post_processor"] = _with_bos(bos, tokens.index(bos), tokenizer["post_processor"])
    config: dict[str, Any] = {}
    for role, key in (("bos_token", "bos"), ("eos_token", "eos"), ("unk_token", "unknown"), ("pad_token", "padding")):
        if (token := _special(metadata, tokens, key, where)) is not None:
            config[role] = token
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        config["chat_template"] = template
    return {name: _json(value) for name, value in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config))}


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def _tokens(metadata: Mapping[str, Any], where: str) -> tuple[list[str], list[int]]:
    tokens = metadata.get(f"{_PREFIX}tokens")
    if not isinstance(tokens, list) or not 0 < len(tokens) <= MAX_VOCABULARY or not _are(tokens, str):
        raise CorruptModelError(f"{where} has no list of tokens; fetch it again")
    kinds = metadata.get(f"{_PREFIX}token_type", [1] * len(tokens))
    if not isinstance(kinds, list) or len(kinds) != len(tokens) or not _are(kinds, int):
        raise CorruptModelError(f"{where}: its lists of tokens and of their kinds do not match; fetch it again")
    if len(set(tokens)) != len(tokens):
        raise CorruptModelError(f"{where}: it has a token twice; fetch it again")
    return tokens, kinds


def _are(items: Sequence[object], kind: type) -> bool:
    return all(type(item) is kind for item in items)


def _special(metadata: Mapping[str, Any], tokens: list[str], key: str, where: str) -> str | None:
    number = metadata.get(f"{_PREFIX}{key}_token_id")
    if number is None:
        return None
    if type(number) is not int or not 0 <= number < len(tokens):
        raise CorruptModelError(f"{where}: its {key} token is {number!r}, which is not a token; fetch it again")
    return tokens[number]


def _with_bos(bos: str, number: int, otherwise: dict[str, Any] | None) -> dict[str, Any]:
    token = {"SpecialToken": {"id": bos, "type_id": 0}}
    template = {
        "type": "TemplateProcessing",
        "single": [token, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [token, {"Sequence": {"id": "A", "type_id": 0}}, token, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {bos: {"id": bos, "ids": [number], "tokens": [bos]}},
    }
    return template if otherwise is None else {"type": "Sequence", "processors": [otherwise, template]}


def _tokenizer(model: dict[str, Any], **parts: Any) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        **parts,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            **model,
        },
    }


def _byte_level(metadata: Mapping[str, Any], tokens: list[str], where: str) -> dict[str, Any]:
    pre = metadata.get(f"{_PREFIX}pre", "default")
    if pre not in _PRE:
        known = ", ".join(_PRE)
        raise UnsupportedModelError(f"{where}: its pre-tokenizer is {pre!r}; only {known} are supported")
    merges = metadata.get(f"{_PREFIX}merges")
    if not isinstance(merges, list) or not _are(merges, str):
        raise CorruptModelError(f"{where} has no list of merges; fetch it again")
    pairs = [merge.split(" ") for merge in merges]
    if not all(len(pair) == 2 for pair in pairs):
        raise CorruptModelError(f"{where}: a merge does not have two pieces; fetch it again")
    cut, ignores_merges = _PRE[pre]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return _tokenizer(
        {"vocab": vocabulary, "merges": pairs, "ignore_merges": ignores_merges},
        normalizer={"type": "NFC"} if pre == "qwen2" else None,
        pre_tokenizer=cut,
        post_processor=_GPT_2,
        decoder=_GPT_2,
    )


def _sentence_piece(metadata: Mapping[str, Any], tokens: list[str], where: str) -> dict[str, Any]:
    scores = metadata.get(f"{_PREFIX}scores")
    if not isinstance(scores, list) or len(scores) != len(tokens) or not _are(scores, float):
        raise CorruptModelError(f"{where}: its lists of tokens and of their scores do not match; fetch it again")
    vocabulary = {token: number for number, token in enumerate(tokens)}
    unknown = _special(metadata, tokens, "unknown", where)
    steps = [{"type": "Prepend", "prepend": "▁"}] if metadata.get(f"{_PREFIX}add_space_prefix", True) else []
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if steps:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return _tokenizer(
        {
            "vocab": vocabulary,
            "merges": _merges(vocabulary, scores),
            "unk_token": unknown,
            "fuse_unk": True,
            "byte_fallback": True,
        },
        normalizer={
            "type": "Sequence",
            "normalizers": [*steps, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}],
        },
        decoder={"type": "Sequence", "decoders": decoders},
    )


def _merges(vocabulary: Mapping[str, int], scores: Sequence[float]) -> list[list[str]]:
    """All pairs of pieces that form a piece, best score of that piece first, as SentencePiece merges them."""
    found = []
    for token, number in vocabulary.items():
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [(left, right) for left, right in pairs if left in vocabulary and right in vocabulary]
        found += [
            (-scores[number], number, vocabulary[left], vocabulary[right], left, right) for left, right in known
        ]
    return [[left, right] for *_order, left, right in sorted(found)]
