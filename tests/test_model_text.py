"""Tokenizer, streamed text, stop strings and chat templates."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as RustTokenizer

from node.errors import CorruptModelError, ModelNotFoundError, PromptError
from node.model.stops import StopMatcher
from node.model.template import ChatTemplate
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


def streamed(tokenizer: Tokenizer, ids: list[int], context: list[int]) -> list[str]:
    stream = tokenizer.stream(context)
    return [*(stream.push(token_id) for token_id in ids), stream.finish()]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_stream_is_the_decoding_of_the_whole(name: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=20))
    assert "".join(streamed(tokenizer, ids, [])) == tokenizer.decode(ids)


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


TEMPLATES = {
    "llama2": (
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "chatml": (
        "{%- for m in messages %}\n    {%- if loop.first and m.role != 'system' %}\n"
        "        {{- '<|im_start|>system\\nHelp.<|im_end|>\\n' }}\n    {%- endif %}\n"
        "    {{- '<|im_start|>' + m.role + '\\n' }}{% generation %}{{ m.content }}{% endgeneration %}"
        "{{- '<|im_end|>\\n' }}\n{%- endfor %}\n"
        "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n"
    ),
    "json": (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% if m.content == 'skip' %}{% continue %}{% endif %}\n"
        "  {% set ns.n = ns.n + 1 %}\n{{ m | tojson }} {{ ns.n }}\n{{ messages | tojson(indent=2) }}\n"
        "{% endfor %}{{ tools is none }} {{ documents is none }} {{ strftime_now('%Y') | length }} {{ unk_token }}"
    ),
}
MESSAGES = [
    {"role": "user", "content": "  Grüße & <b>'quotes'</b>\n"},
    {"role": "assistant", "content": " yes "},
    {"role": "user", "content": "日本 🙂"},
]
CONFIG: dict[str, Any] = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}, "unk_token": "<unk>"}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("generation_prompt", [True, False])
def test_template_is_byte_for_byte_that_of_transformers(name: str, generation_prompt: bool, tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    peer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=byte_fallback_tokenizer()._rust, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    expected = peer.apply_chat_template(
        MESSAGES, chat_template=TEMPLATES[name], tokenize=False, add_generation_prompt=generation_prompt
    )
    in_config = {**CONFIG, "chat_template": [{"name": "default", "template": TEMPLATES[name]}]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(in_config))
    template = ChatTemplate.from_folder(tmp_path)
    assert template is not None
    assert template.render(MESSAGES, generation_prompt).encode() == expected.encode()


def test_template_file_goes_first_and_none_is_none(tmp_path: Path) -> None:
    assert ChatTemplate.from_folder(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**CONFIG, "chat_template": "config"}))
    (tmp_path / "chat_template.jinja").write_text("file {{ eos_token }}")
    template = ChatTemplate.from_folder(tmp_path)
    assert template is not None and template.render([]) == "file </s>"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].__class__.__mro__ }}", "unsafe"),
        ("{% set ns = namespace(__init__=1) %}", "__init__"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ messages[9].role }}", "undefined|no element"),
        ("{% for i in range(10000000) %}{% endfor %}", "OverflowError"),
    ],
)
def test_template_errors_are_one_sentence(source: str, reason: str) -> None:
    with pytest.raises(PromptError, match=reason):
        ChatTemplate(source).render([{"role": "user", "content": "x"}])


def test_template_that_does_not_compile() -> None:
    with pytest.raises(CorruptModelError, match="chat template is not valid"):
        ChatTemplate("{% if %}")


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
