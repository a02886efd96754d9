"""Inputs that once broke a promise of a decoder, as `scripts/fuzz` found them, made short and readable."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest
from tokenizers import Tokenizer as RustTokenizer

from node.errors import ConfigError, CorruptModelError, KekahydeError, ModelError, ModelNotFoundError, PromptError
from node.gateway.http.app import json_text, parse_json
from node.gateway.http.errors import ApiError
from node.model.tokenizer import Tokenizer
from node.operations import OPERATIONS
from protocol.errors import MAX_TEXT_CHARACTERS
from scripts.fuzzing import tiny_model
from scripts.fuzzing.bodies import CHAT, FORMED_RESPONSE, TEXT
from scripts.fuzzing.served import end, served
from scripts.fuzzing.target import MemoryWatch, examine
from scripts.fuzzing.targets import target_named

CONFIG = tiny_model.CONFIG
SENTENCE = {"type": "text", "text": "a"}
HALF = "\ud800"


@pytest.fixture(scope="module", autouse=True)
def the_node_of_the_targets_ends() -> Iterator[None]:
    """Other tests in this process see that no node is left."""
    yield
    end()


def nested(depth: int, key: str | None = None) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value] if key is None else {key: [value]}
    return value


def tokenizer_with(**ids: int) -> dict[str, Any]:
    words: dict[str, Any] = json.loads(tiny_model.tokenizers()[3])
    words["model"]["vocab"].update(ids)
    return words


REFUSED: list[tuple[str, Any]] = [
    # what was no list, no text or no object where one belongs
    ("config", {**CONFIG, "architectures": 7}),
    ("config", {**CONFIG, "hidden_act": ["silu"]}),
    ("config", {**tiny_model.FAMILIES[5], "model_type": "gemma3_text", "rope_scaling": {"full_attention": [1]}}),
    ("anthropic", {"messages": [{"role": "user", "content": "a"}], "tools": [{}], "tool_choice": {"type": {}}}),
    ("responses", {**FORMED_RESPONSE, "input": [{"role": "user", "content": [{**SENTENCE, "type": []}]}]}),
    # a configuration that could be imported, and then not be opened
    ("config", {**CONFIG, "rms_norm_eps": 5.0}),
    ("config", {**CONFIG, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}, "rope_theta": 0.5}),
    # the library counts to the largest id whenever it writes a tokenizer down: a minute, and gigabytes
    ("tokenizer", tokenizer_with(a=2**31 - 1)),
    # texts that cannot be sent, and numbers that cannot be read
    ("openai-text", {**TEXT, "guided_choice": ["a", HALF]}),
    ("openai-text", {**TEXT, "guided_regex": HALF}),
    ("openai-text", {**TEXT, "logit_bias": {"0" * 5000: 1}}),
    # more levels than can be written again
    ("openai-chat", {**CHAT, "response_format": {"type": "json_schema", "json_schema": nested(200, "schema")}}),
    ("openai-chat", {**CHAT, "guided_json": json.dumps(nested(300, "anyOf"))}),
    # the library ends the process
    ("schema", {"const": -(2**63)}),
    ("schema", {"enum": [-(2**63) + 1]}),
]


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=lambda value: str(value)[:50])
def test_what_was_not_refused_is(name: str, value: Any) -> None:
    target, data = target_named(name), json.dumps(value).encode()
    with pytest.raises(target.errors):
        target.read(data)
    examine(target, data, MemoryWatch(), slower=5.0)


def test_a_panic_of_the_library_is_an_error_of_the_model() -> None:
    """It strips more spaces than a text has; it is no Exception, and ended whatever thread decoded."""
    words = json.loads(tiny_model.tokenizers()[1])
    words["decoder"]["decoders"][-1] |= {"start": 0, "stop": 20}
    tokenizer = Tokenizer(RustTokenizer.from_str(json.dumps(words)))
    with pytest.raises(ModelError, match="use another model"):
        tokenizer.decode([3])


GRAMMARS = ['root ::= "a" other', 'root ::= "a', "root ::= " + "(" * 900 + '"a"' + ")" * 900]


@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda value: str(value)[:20])
def test_a_grammar_that_is_no_gbnf_is_refused_and_not_quoted(grammar: str) -> None:
    with pytest.raises(PromptError, match="GBNF") as refused:
        target_named("grammar").read(grammar.encode())
    assert "other" not in str(refused.value)


def test_a_template_is_found_by_a_name_that_is_text() -> None:
    named = [{"name": {"name": "default"}, "template": "a"}, {"name": "default", "template": "b"}]
    target_named("tokenizer-config").read(json.dumps({"chat_template": named}).encode())


@pytest.mark.parametrize("source", ["{{ 'ab' * 4000000000 }}", "{{ [1] * 10**10 }}", "{{ 10 ** 1000000000 }}"])
def test_what_a_template_multiplies_has_a_size(source: str) -> None:
    with pytest.raises(PromptError, match="too large"):
        target_named("template").read(source.encode())
    examine(target_named("template"), source.encode(), MemoryWatch(), slower=5.0)


@pytest.mark.parametrize("version", [1.0, True])
def test_a_manifest_has_one_encoding(version: object) -> None:
    target = target_named("manifest")
    whole = cbor2.loads(target.seeds()[0])
    for spoilt in ({**whole, "kekahyde": version}, {**whole, "config": {**whole["config"], 3: 4}}):
        with pytest.raises(CorruptModelError):
            target.read(cbor2.dumps(spoilt, canonical=True))
    whole["units"][1][0] = 0.0
    with pytest.raises(CorruptModelError):
        target.read(cbor2.dumps(whole, canonical=True))


def test_a_text_that_quotes_a_file_has_a_bound() -> None:
    long = {**CONFIG, "num_hidden_layers": "0" * 5000}
    with pytest.raises(KekahydeError) as refused:
        target_named("config").read(json.dumps(long).encode())
    text = str(refused.value)
    assert len(text) <= MAX_TEXT_CHARACTERS and text.startswith("model a model") and "safetensors" in text
    with pytest.raises(ApiError) as unknown:
        target_named("embeddings").read(json.dumps({"x" * 5000: 1}).encode())
    assert len(str(unknown.value)) < 200


@pytest.mark.parametrize("name", ["access.json", "guards.json", "paired.json", "swarm.json"])
@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000])
def test_a_damaged_file_is_refused_by_name(name: str, content: bytes) -> None:
    with pytest.raises(ConfigError, match=name):
        target_named("settings").read(name.encode() + b"\n" + content)


def test_a_number_that_is_no_time_is_refused() -> None:
    book = {"version": 1, "born": 1.0, "looked": 1.0, "lanes": {}, "seen": {"a": [10**400, 1]}, "caught": []}
    with pytest.raises(ConfigError, match="guards"):
        target_named("settings").read(b"guards.json\n" + json.dumps(book).encode())
    for target in target_named("settings").seeds():
        if target.startswith(b"replicas.json"):
            target_named("settings").read(target.replace(b"1.5", b"1" + b"0" * 400))


def test_an_id_that_is_half_a_character_does_not_end_the_answers() -> None:
    target_named("websocket").read(json.dumps({"op": "peers", "id": HALF}).encode())
    target_named("websocket").read(json.dumps({"op": "state", "id": 1}).encode())
    assert json.loads(json_text({"id": HALF})) == {"id": HALF}


def test_a_model_to_publish_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_model.write_checkpoint(tmp_path / "folder")
    monkeypatch.chdir(tmp_path)
    for name in ("folder", "..", "b" * 300, "\x00"):
        with pytest.raises(ModelNotFoundError):
            OPERATIONS["publish"](served().node, {"model": name})


def test_json_has_a_depth() -> None:
    assert parse_json("[" * 128 + "]" * 128) == nested(127)
    for deep in ("[" * 129 + "]" * 129, "[" * 100_000):
        with pytest.raises(ValueError, match="deep"):
            parse_json(deep)
