"""Tool calls, forms, several answers and likelihoods through the gateway, asked with OpenAI's client."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import openai
import pytest
from gateway_fakes import Serving, serving
from puppets import write_puppet

from node.engine.request import Completed
from node.model.sampling import SamplingParams

END, FIRST = 256, 257
WORDS = [
    "Let me see.",
    "<tool_call>",
    '\n{"name": "weather", ',
    '"arguments": ',
    '{"city": ',
    '"Oslo"',
    "}}",
    "\n</tool_call>",
]
"""What the puppet says; each is a token, because grammars want texts to be made of the tokens that encode them."""
TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}<tool_call></tool_call>{% endif %}"
    "{% for message in messages %}[{{ message.role }}]{{ message.content }}"
    "{% for call in message.tool_calls %}<tool_call>{{ call.function.arguments | tojson }}</tool_call>{% endfor %}"
    "{% endfor %}?{% if enable_thinking %}<think>{% endif %}{# </think> #}"
)
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASKED: dict[str, Any] = {"model": "puppet", "messages": [{"role": "user", "content": "rain?"}], "temperature": 0}


@contextmanager
def puppet_with_tools(folder: Path) -> Iterator[Serving]:
    """A puppet that answers every chat with a sentence and a call."""
    said = range(FIRST, FIRST + len(WORDS))
    checkpoint = write_puppet(
        folder / "checkpoint",
        {ord("?"): FIRST, ord(">"): FIRST, **dict(pairwise([*said, END]))},
        special=["<|end|>"],
        config={"eos_token_id": END, "max_position_embeddings": 4096},
        tokenizer_config={"chat_template": TEMPLATE},
        words=WORDS,
    )
    with serving(folder / "data", checkpoint) as node:
        yield node


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with puppet_with_tools(tmp_path_factory.mktemp("tools")) as node:
        yield node


@pytest.fixture
def client(node: Serving) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{node.url}/v1", api_key="any", max_retries=0, timeout=30) as client:
        yield client


def test_a_model_that_calls_a_tool(client: openai.OpenAI) -> None:
    choice = client.chat.completions.create(**ASKED, tools=[WEATHER]).choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content == "Let me see."
    (call,) = choice.message.tool_calls or ()
    assert call.type == "function" and call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "Oslo"}


def test_a_call_streams_and_its_arguments_grow(client: openai.OpenAI) -> None:
    text, arguments, names, reasons = "", [], [], []
    for chunk in client.chat.completions.create(**ASKED, tools=[WEATHER], stream=True):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reasons.append(choice.finish_reason)
            for call in choice.delta.tool_calls or ():
                names += [call.function.name] if call.function and call.function.name else []
                arguments.append((call.function.arguments or "") if call.function else "")
    assert (text, names, reasons[-1]) == ("Let me see.", ["weather"], "tool_calls")
    assert json.loads("".join(arguments)) == {"city": "Oslo"} and len(arguments) > 2


CALLS = {str(FIRST + 1): 50}
"""Of what may begin an answer, a call and not a thought."""


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_required_call_comes_without_words(client: openai.OpenAI, choice: Any) -> None:
    answer = client.chat.completions.create(**ASKED, tools=[WEATHER], tool_choice=choice, logit_bias=CALLS)
    message = answer.choices[0].message
    assert message.content is None and message.tool_calls
    assert {call.function.name for call in message.tool_calls if call.type == "function"} == {"weather"}


@pytest.mark.parametrize("more", [{}, {"tools": [WEATHER], "tool_choice": "none"}])
def test_without_tools_a_call_is_text(client: openai.OpenAI, more: dict[str, Any]) -> None:
    choice = client.chat.completions.create(**ASKED, **more).choices[0]
    assert choice.message.content == "".join(WORDS) and choice.finish_reason == "stop"
    assert not choice.message.tool_calls


def test_calls_and_results_are_rendered_by_the_models_template(node: Serving) -> None:
    template = node.model.chat_template
    assert template is not None
    with openai.OpenAI(base_url=f"{node.url}/v1", api_key="any", max_retries=0) as client:
        history = [
            *ASKED["messages"],
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": "wet"},
        ]
        answer = client.chat.completions.create(**{**ASKED, "messages": history}, tools=[WEATHER])
    expected = template.render(
        [
            *ASKED["messages"],
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"arguments": {"city": "Oslo"}}}]},
            {"role": "tool", "content": "wet"},
        ],
        tools=[WEATHER],
    )
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(node.model.tokenizer().encode(expected, add_special=False))


def test_a_schema_that_cannot_be_followed_is_loosened_for_a_tool_and_said(client: openai.OpenAI) -> None:
    odd = {"type": "function", "function": {"name": "odd", "parameters": {"type": "array", "uniqueItems": True}}}
    answer = client.chat.completions.create(**ASKED, tools=[WEATHER, odd])
    assert answer.choices[0].message.tool_calls
    assert "odd" in answer.model_extra["kekahyde"]["note"]  # type: ignore[index]


def test_thoughts_are_apart_from_the_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**ASKED, reasoning_effort="high", max_tokens=2)
    message = answer.choices[0].message
    assert message.content == "" and message.model_extra["reasoning_content"] == "Let me see.<tool_call>"  # type: ignore[index]


def test_several_answers_have_one_prefill(client: openai.OpenAI, node: Serving) -> None:
    answer = client.completions.create(model="puppet", prompt="ab" * 40, n=3, max_tokens=4, temperature=1, seed=5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage is not None and answer.usage.prompt_tokens == 80 and answer.usage.completion_tokens == 12
    receipts = answer.model_extra["kekahyde"]["answers"]  # type: ignore[index]
    assert [receipt["cached_tokens"] for receipt in receipts[1:]] == [79, 79]
    for index, choice in enumerate(answer.choices):  # each is what its seed gives alone
        params = SamplingParams(temperature=1, seed=5 + index, max_tokens=4)
        ended = node.ask(f"alone {index}", "ab" * 40, params).finish()
        assert isinstance(ended, Completed) and ended.receipt.text == choice.text


def test_the_best_of_several_answers(client: openai.OpenAI) -> None:
    wanted = {"model": "puppet", "prompt": "ab", "max_tokens": 4, "temperature": 1, "seed": 5, "logprobs": 0}
    every = client.completions.create(**wanted, n=4).choices  # type: ignore[call-overload]
    best = client.completions.create(**wanted, best_of=4).choices  # type: ignore[call-overload]
    assert best[0].text == max(every, key=lambda choice: mean(choice.logprobs.token_logprobs)).text


def test_likelihoods(client: openai.OpenAI) -> None:
    wanted = {**ASKED, "logprobs": True, "top_logprobs": 3, "max_tokens": 2}
    for stream in (False, True):
        answer = client.chat.completions.create(**wanted, stream=stream)
        if stream:
            chunks = [choice.logprobs for chunk in answer for choice in chunk.choices]
            content = [one for logprobs in chunks if logprobs is not None for one in logprobs.content or ()]
        else:
            content = answer.choices[0].logprobs.content
        assert [one.token for one in content] == WORDS[:2]
        for one in content:
            assert one.top_logprobs[0].token == one.token and one.top_logprobs[0].logprob == one.logprob
            assert bytes(one.bytes or ()).decode() == one.token
            assert sum(math.exp(top.logprob) for top in one.top_logprobs) < 1 + 1e-6


def test_bias_and_a_minimum_of_tokens(client: openai.OpenAI) -> None:
    wanted = {"model": "puppet", "prompt": "?", "temperature": 0, "max_tokens": 3}
    assert client.completions.create(**wanted, logit_bias={"120": 100}).choices[0].text == "xxx"  # type: ignore[call-overload]
    last = WORDS[-1]
    ended = {"model": "puppet", "prompt": last, "temperature": 0, "max_tokens": 3, "echo": True}
    assert client.completions.create(**ended).choices[0].text == last  # type: ignore[call-overload]
    longer = client.completions.create(**ended, extra_body={"min_tokens": 3})  # type: ignore[call-overload]
    assert longer.usage.completion_tokens == 3


def test_several_prompts(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="puppet", prompt=["?", "x?"], temperature=0, max_tokens=1)
    assert [choice.text for choice in answer.choices] == ["Let me see."] * 2
    assert answer.usage is not None and answer.usage.prompt_tokens == 3
