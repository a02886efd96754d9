"""Chat templates and special tokens are those of transformers, and what is none is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_tokenizers import byte_fallback_tokenizer, byte_level_tokenizer
from puppets import write_puppet

from node.errors import CorruptModelError, PromptError
from node.model.generate import Answer, Finished
from node.model.sampling import SamplingParams
from node.model.template import ChatTemplate
from node.model.tokenizer import Tokenizer
from node.store.library import Library

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


NAMES_TOKENS = "{{ bos_token }}|{{ eos_token }}|{{ unk_token }}"
ADDED = {"content": "</s>", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}


@pytest.mark.parametrize(
    ("in_config", "in_map"),
    [
        ({}, {"bos_token": "<s>", "eos_token": ADDED}),
        ({"bos_token": "<unk>", "unk_token": "<unk>"}, {"bos_token": "<s>"}),
        ({"bos_token": "<unk>"}, {"bos_token": None}),
        ({"bos_token": "<unk>", "added_tokens_decoder": {}}, {"bos_token": "<s>", "eos_token": "</s>"}),
        ({"bos_token": "<s>", "added_tokens_decoder": {"2": ADDED}}, None),
        (None, {"bos_token": "<s>"}),
    ],
)
def test_special_tokens_of_two_files_are_those_of_transformers(
    in_config: dict[str, Any] | None, in_map: dict[str, Any] | None, tmp_path: Path
) -> None:
    from transformers import PreTrainedTokenizerFast

    byte_fallback_tokenizer()._rust.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "chat_template.jinja").write_text(NAMES_TOKENS)
    for name, content in (("tokenizer_config.json", in_config), ("special_tokens_map.json", in_map)):
        if content is not None:
            (tmp_path / name).write_text(json.dumps(content))
    expected = PreTrainedTokenizerFast.from_pretrained(tmp_path).apply_chat_template(MESSAGES, tokenize=False)
    template = ChatTemplate.from_folder(tmp_path)
    assert template is not None and template.render(MESSAGES) == expected


def named(content: str, special: bool = True) -> dict[str, Any]:
    return {**ADDED, "content": content, "special": special}


@pytest.mark.parametrize(
    "in_config",
    [
        {"pad_token": "<x>"},
        {"pad_token": {"__type": "AddedToken", **named("<x>")}, "bos_token": "<y>"},
        {"image_token": "<x>", "pad_token": "<y>"},
        {"additional_special_tokens": ["<y>", "<x>"]},
        {"added_tokens_decoder": {"99": named("<y>"), "9": named("<x>", special=False)}},
        {"added_tokens_decoder": {"9": named("<x>", special=False)}, "pad_token": "<x>"},
        {"added_tokens_decoder": {"2": named("</s>")}},
        {"bos_token": "the"},
    ],
)
def test_tokens_that_other_files_name_are_tokens(in_config: dict[str, Any], tmp_path: Path) -> None:
    """transformers adds what tokenizer.json lacks; without it `<x>` would be read as three characters."""
    from transformers import PreTrainedTokenizerFast

    byte_level_tokenizer()._rust.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(in_config))
    peer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    tokenizer = Tokenizer.from_folder(tmp_path)
    for text in ("a <x> <y></s>the<|end|>", "<y><x>"):
        ids = tokenizer.encode(text)
        assert ids == peer(text)["input_ids"]
        assert tokenizer.decode(ids) == peer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("listed", [[], ["x"], {"x": ADDED}, {"1": "x"}, {"1": {"special": True}}])
def test_a_list_of_added_tokens_that_is_none(listed: Any, tmp_path: Path) -> None:
    byte_level_tokenizer()._rust.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": listed}))
    with pytest.raises(CorruptModelError, match=r"tokenizer_config\.json has no valid added_tokens_decoder"):
        Tokenizer.from_folder(tmp_path)


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


@pytest.mark.parametrize(
    ("config", "in_config", "in_map", "ends"),
    [
        ({}, {"eos_token": "</s>"}, {}, [256]),
        ({}, {}, {"eos_token": ADDED}, [256]),
        ({"eos_token_id": 99}, {"eos_token": "</s>"}, {}, [99]),
        ({}, {"eos_token": "<none>"}, {}, [257]),
        ({}, {}, {}, []),
    ],
)
def test_an_answer_ends_at_the_token_that_the_configuration_or_else_the_tokenizer_names(
    config: dict[str, Any], in_config: dict[str, Any], in_map: dict[str, Any], ends: list[int], tmp_path: Path
) -> None:
    folder = write_puppet(tmp_path / "source", {}, ["</s>"], 300, config, in_config)
    (folder / "special_tokens_map.json").write_text(json.dumps(in_map))
    library = Library(tmp_path / "models")
    model = library.resolve(library.import_folder(folder, "puppet").model_id)
    for token_id in (98, 99, 256, 257):
        answer = Answer(model.config, model.tokenizer(), [97], SamplingParams(temperature=0.0, max_tokens=5), True)
        logits = np.zeros(300, np.float32)
        logits[token_id] = 1.0
        finished = [event for event in answer.advance(logits) if isinstance(event, Finished)]
        assert [event.reason for event in finished] == ["stop"] * (token_id in ends)
