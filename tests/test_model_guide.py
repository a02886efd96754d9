"""Grammars of answers: a model that says anything at all says only what its grammar allows."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from puppets import byte_tokenizer

from node.errors import PromptError
from node.gateway.chat.dialect import HERMES, LLAMA, MISTRAL, Dialect, GrammarWriter, Thinking
from node.gateway.chat.form import json_rule
from node.gateway.chat.reply import CallBegins, ReplyReader
from node.gateway.chat.tools import Tool, Tools
from node.model.guide import Guide, GuideTokens, lark_grammar
from node.model.sampling import Sampler, SamplingParams
from node.model.tokenizer import Tokenizer

SPECIAL = ("<|end|>", "[TOOL_CALLS]", "<|python_tag|>")
END = 256
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(byte_tokenizer(SPECIAL))


@pytest.fixture(scope="module")
def tokens(tokenizer: Tokenizer) -> GuideTokens:
    return GuideTokens(tokenizer, 256 + len(SPECIAL), [END])


def said(tokens: GuideTokens, tokenizer: Tokenizer, grammar: str, seed: int, begun: str = "") -> str:
    """What a model says after `begun` whose logits are noise, under a grammar; with the words of special tokens."""
    guide = Guide(tokens, lark_grammar(grammar)).fresh()
    sampler = Sampler(SamplingParams(temperature=1.0, seed=seed), [], [END], guide)
    noise = np.random.default_rng(seed)
    text = [begun.encode()]
    for letter in begun.encode():
        guide.push(letter)
    for _ in range(400):
        scores = noise.normal(0, 1, tokens.num_tokens).astype(np.float32)
        scores[[ord(letter) for letter in '"}]']] += 3  # or it would hardly ever end
        token_id = sampler.pick(scores)
        if token_id == END:
            break
        text.append(tokenizer.piece(token_id))
        if guide.is_over:
            break
    else:
        pytest.fail(f"it did not end: {b''.join(text)[:200]!r}")
    return b"".join(text).decode(errors="replace")


@pytest.mark.parametrize("seed", range(5))
def test_noise_under_a_schema_is_an_object_of_the_schema(
    tokens: GuideTokens, tokenizer: Tokenizer, seed: int
) -> None:
    value = json.loads(said(tokens, tokenizer, f"start: %json {json.dumps(SCHEMA)}", seed))
    assert set(value) == {"city", "days"} and value["city"] in ("Oslo", "Rome") and 1 <= value["days"] <= 9


def test_noise_under_a_regex_and_a_choice(tokens: GuideTokens, tokenizer: Tokenizer) -> None:
    assert re.fullmatch(r"[0-9]{3}/[a-f]", said(tokens, tokenizer, r"start: /[0-9]{3}\/[a-f]/", 1))
    assert said(tokens, tokenizer, 'start: "yes" | "no"', 2) in ("yes", "no")
    assert said(tokens, tokenizer, 'root ::= "a" b\nb ::= "b" | "c"', 3) in ("ab", "ac")


def tools(must_call: bool, parallel: bool = False) -> Tools:
    offered = tuple(Tool(name, SCHEMA, {}) for name in ("weather", "clock"))
    return Tools(offered, must_call=must_call, parallel=parallel)


@pytest.mark.parametrize("dialect", [HERMES, MISTRAL, LLAMA])
@pytest.mark.parametrize("thinking", [Thinking(), Thinking(True), Thinking(True, True)])
def test_a_call_that_is_required_comes_from_noise(
    tokens: GuideTokens, tokenizer: Tokenizer, dialect: Dialect, thinking: Thinking
) -> None:
    writer = GrammarWriter(tokens.special_ids(dialect.markers))
    begun = "<think>" * (not thinking.begun) + "hm</think>\n\n" if thinking.possible else ""
    text = said(tokens, tokenizer, writer.calls(tools(True), dialect, thinking), 7, begun)
    reader = ReplyReader(dialect, thinking)
    pieces = [*reader.push(text), *reader.finish()]
    assert [piece.name for piece in pieces if isinstance(piece, CallBegins)] in (["weather"], ["clock"]), text


@pytest.mark.parametrize("dialect", [HERMES, MISTRAL, LLAMA])
def test_where_a_call_may_come_text_may_come_too_and_a_call_that_began_is_one(
    tokens: GuideTokens, tokenizer: Tokenizer, dialect: Dialect
) -> None:
    writer = GrammarWriter(tokens.special_ids(dialect.markers))
    guide = Guide(tokens, lark_grammar(writer.calls(tools(False, True), dialect, Thinking())))
    wordy, calling = guide.fresh(), guide.fresh()
    for letter in b"no call, [1] < 2.\n":
        wordy.push(letter)
    assert np.isfinite(wordy.mask(np.zeros(tokens.num_tokens, np.float32))[END]), "text may end anywhere"
    head = {HERMES: "<tool_call>\n", MISTRAL: "[TOOL_CALLS][", LLAMA: ""}[dialect] + '{"name": "'
    for token_id in tokenizer.encode(head):
        calling.push(token_id)
    allowed = calling.mask(np.zeros(tokens.num_tokens, np.float32))
    assert {chr(i) for i in np.flatnonzero(np.isfinite(allowed))} == {"w", "c"}, "only names of tools"


def test_what_the_library_cannot_do_is_refused_by_name(tokens: GuideTokens) -> None:
    with pytest.raises(PromptError, match="uniqueItems"):
        Guide(tokens, lark_grammar('start: %json {"type": "array", "uniqueItems": true}'))
    with pytest.raises(PromptError, match="unknown name"):
        Guide(tokens, lark_grammar("start: nothing"))
    with pytest.raises(PromptError, match="characters"):
        Guide(tokens, lark_grammar(f'start: "{"x" * (1 << 19)}"'))


def test_two_answers_of_one_guide_are_apart(tokens: GuideTokens) -> None:
    guide = Guide(tokens, lark_grammar('start: "ab" | "cd"'))
    first, second = guide.fresh(), guide.fresh()
    first.push(ord("a"))
    second.push(ord("c"))
    first.push(ord("b"))
    assert first.is_over and not second.is_over


def test_a_minimum_of_tokens_gives_way_where_a_grammar_allows_only_an_end(tokens: GuideTokens) -> None:
    guide = Guide(tokens, lark_grammar('start: "a"'))
    sampler = Sampler(SamplingParams(min_tokens=9), [], [END], guide)
    scores = np.zeros(tokens.num_tokens, np.float32)
    assert [sampler.pick(scores), sampler.pick(scores)] == [ord("a"), END]
    freely = Sampler(SamplingParams(min_tokens=1), [], [END])
    scores[END] = 9
    assert [freely.pick(scores) == END, freely.pick(scores) == END] == [False, True]


def test_white_space_in_json_has_a_bound(tokens: GuideTokens) -> None:
    """A weak model would write spaces until the answer is full."""
    grammar = lark_grammar(f"start: {json_rule({'type': 'object', 'required': ['a'], 'properties': {'a': {}}})}")

    def fits(text: str) -> bool:
        guide = Guide(tokens, grammar)
        for letter in text.encode():
            if not np.isfinite(guide.mask(np.zeros(tokens.num_tokens, np.float32))[letter]):
                return False
            guide.push(letter)
        return True

    assert fits('{\n    "a": [\n        1\n    ]\n}') and fits('{"a":1}')
    assert fits("{" + " " * 40) and not fits("{" + " " * 41)
    assert '"whitespace_flexible": false' in json_rule({"x-guidance": {"whitespace_flexible": False}})
