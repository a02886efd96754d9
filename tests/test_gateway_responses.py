"""OpenAI's client against /v1/responses: whole, as events, continued, with tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from gateway_fakes import Serving
from test_gateway_tools import WEATHER, WORDS, puppet_with_tools

from node.gateway.openai.remembered import MAX_RESPONSES, Remembered

ASKED: dict[str, Any] = {"model": "puppet", "input": "rain?", "temperature": 0}
TOOL: dict[str, Any] = {"type": "function", **WEATHER["function"]}
TEXT = "".join(WORDS)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with puppet_with_tools(tmp_path_factory.mktemp("responses")) as node:
        yield node


@pytest.fixture
def client(node: Serving) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{node.url}/v1", api_key="any", max_retries=0, timeout=30) as client:
        yield client


def test_a_response_in_one_piece(client: openai.OpenAI) -> None:
    response = client.responses.create(**ASKED)
    assert response.output_text == TEXT and response.status == "completed"
    assert response.usage is not None and response.usage.output_tokens == len(WORDS) + 1
    short = client.responses.create(**ASKED, max_output_tokens=1)
    assert short.status == "incomplete" and short.incomplete_details is not None
    assert short.incomplete_details.reason == "max_output_tokens" and short.output_text == WORDS[0]


def test_a_response_with_a_call(client: openai.OpenAI) -> None:
    response = client.responses.create(**ASKED, tools=[TOOL])
    message, call = response.output
    assert message.type == "message" and call.type == "function_call"
    assert call.name == "weather" and json.loads(call.arguments) == {"city": "Oslo"}
    answered = [
        {"role": "user", "content": [{"type": "input_text", "text": "rain?"}]},
        {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
        {"type": "function_call_output", "call_id": call.call_id, "output": "wet"},
    ]
    again = client.responses.create(**{**ASKED, "input": answered}, tools=[TOOL])
    assert again.usage is not None and response.usage is not None
    assert again.usage.input_tokens > response.usage.input_tokens


def test_a_response_as_events(client: openai.OpenAI) -> None:
    kinds, text, arguments, numbers, last = [], "", "", [], None
    for event in client.responses.create(**ASKED, tools=[TOOL], stream=True):
        kinds.append(event.type)
        numbers.append(event.sequence_number)
        if event.type == "response.output_text.delta":
            text += event.delta
        if event.type == "response.function_call_arguments.delta":
            arguments += event.delta
        last = event
    assert kinds[:2] == ["response.created", "response.in_progress"] and kinds[-1] == "response.completed"
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 2
    assert numbers == list(range(len(numbers)))
    assert text == WORDS[0] and json.loads(arguments) == {"city": "Oslo"}
    assert last is not None and [item.type for item in last.response.output] == ["message", "function_call"]


def test_a_response_continues_another(client: openai.OpenAI, node: Serving) -> None:
    first = client.responses.create(**ASKED, instructions="Be short.")
    second = client.responses.create(**{**ASKED, "input": "and now?"}, previous_response_id=first.id)
    template = node.model.chat_template
    assert template is not None and second.usage is not None
    history = [
        {"role": "user", "content": "rain?"},
        {"role": "assistant", "content": TEXT},
        {"role": "user", "content": "and now?"},
    ]
    expected = node.model.tokenizer().encode(template.render(history), add_special=False)
    assert second.usage.input_tokens == len(expected)
    unkept = client.responses.create(**ASKED, store=False)
    for response_id in (unkept.id, "resp_nothing"):
        with pytest.raises(openai.NotFoundError, match="is not remembered"):
            client.responses.create(**ASKED, previous_response_id=response_id)


def test_what_cannot_be_done_is_refused(client: openai.OpenAI) -> None:
    for wanted in ({"background": True}, {"tools": [{"type": "web_search"}]}, {"input": [{"type": "image"}]}):
        with pytest.raises(openai.BadRequestError):
            client.responses.create(**{**ASKED, **wanted})


def test_a_form(client: openai.OpenAI) -> None:
    form = {"format": {"type": "json_schema", "name": "x", "schema": {"enum": ["yes", "no"]}, "strict": True}}
    assert client.responses.create(**ASKED, text=form).output_text in ('"yes"', '"no"')


def test_memory_is_bounded() -> None:
    remembered = Remembered()
    for number in range(MAX_RESPONSES + 1):
        remembered.keep(str(number), [{"role": "user", "content": "x"}])
    with pytest.raises(Exception, match="not remembered"):
        remembered.of("0")
    assert remembered.of(str(MAX_RESPONSES))
    remembered.keep("large", [{"role": "user", "content": "x" * (15 << 20)}])
    remembered.keep("larger", [{"role": "user", "content": "x" * (15 << 20)}])
    assert remembered.of("larger")
    with pytest.raises(Exception, match="not remembered"):
        remembered.of("large")
