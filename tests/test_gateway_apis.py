"""The clients of Anthropic and Ollama against the gateway: answers, tools, streams, refusals."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from typing import Any

import anthropic
import ollama
import pytest
from gateway_fakes import Serving
from test_gateway_tools import WEATHER, WORDS, puppet_with_tools

from node.places import token_of

ASKED: list[dict[str, Any]] = [{"role": "user", "content": "rain?"}]
TOOL: dict[str, Any] = {"name": "weather", "input_schema": WEATHER["function"]["parameters"]}
GREEDY = {"temperature": 0}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with puppet_with_tools(tmp_path_factory.mktemp("apis")) as node:
        yield node


@pytest.fixture
def claude(node: Serving) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=node.url, api_key="any", max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture
def llama(node: Serving) -> Iterator[ollama.Client]:
    with ollama.Client(host=node.url) as client:
        yield client


def test_a_message_with_a_call(claude: anthropic.Anthropic) -> None:
    wanted: dict[str, Any] = {"model": "puppet", "max_tokens": 100, "messages": ASKED, "extra_body": GREEDY}
    message = claude.messages.create(**wanted, tools=[TOOL], system="You are short.")
    text, call = message.content
    assert (text.type, text.text) == ("text", WORDS[0])  # type: ignore[union-attr]
    assert call.type == "tool_use" and call.name == "weather" and call.input == {"city": "Oslo"}
    assert message.stop_reason == "tool_use" and message.usage.output_tokens == len(WORDS) + 1
    counted = claude.messages.count_tokens(model="puppet", messages=ASKED, tools=[TOOL], system="You are short.")
    cached = message.usage.cache_read_input_tokens or 0
    assert counted.input_tokens == message.usage.input_tokens + cached


def test_a_message_as_events(claude: anthropic.Anthropic) -> None:
    wanted: dict[str, Any] = {"model": "puppet", "max_tokens": 100, "messages": ASKED, "extra_body": GREEDY}
    with claude.messages.stream(**wanted, tools=[TOOL]) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_message()
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 2
    text, call = message.content
    assert text.text == WORDS[0] and call.input == {"city": "Oslo"}  # type: ignore[union-attr]
    assert message.stop_reason == "tool_use"


def test_history_with_results_of_tools_and_a_stop(claude: anthropic.Anthropic) -> None:
    history: list[dict[str, Any]] = [
        *ASKED,
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "ok"},
                {"type": "tool_use", "id": "t", "name": "weather", "input": {"city": "Oslo"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "wet"}]},
                {"type": "text", "text": "so?", "cache_control": {"type": "ephemeral"}},
            ],
        },
    ]
    message = claude.messages.create(
        model="puppet",
        max_tokens=100,
        messages=history,  # type: ignore[arg-type]
        stop_sequences=["see"],
        extra_body=GREEDY,
    )
    assert [block.text for block in message.content if block.type == "text"] == ["Let me "]
    assert message.stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("wanted", "error", "said"),
    [
        ({"model": "nothing"}, anthropic.NotFoundError, "no model is called 'nothing'"),
        ({"max_tokens": 0}, anthropic.BadRequestError, "max_tokens"),
        ({"messages": []}, anthropic.BadRequestError, "at least one message"),
        ({"extra_body": {"colour": "red"}}, anthropic.BadRequestError, "'colour' is unknown"),
        ({"tools": [{"type": "web_search_20250305", "name": "web"}]}, anthropic.BadRequestError, "web_search"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            anthropic.BadRequestError,
            "only text",
        ),
    ],
)
def test_refusals_have_anthropics_form(
    claude: anthropic.Anthropic, wanted: dict[str, Any], error: type[anthropic.APIStatusError], said: str
) -> None:
    with pytest.raises(error, match=said) as refused:
        claude.messages.create(**{"model": "puppet", "max_tokens": 10, "messages": ASKED, **wanted})
    body = refused.value.body
    assert isinstance(body, dict) and body["type"] == "error" and set(body["error"]) == {"type", "message"}


def test_ollama_lists_and_shows_models(llama: ollama.Client, node: Serving) -> None:
    (model,) = llama.list().models
    assert model.model == "puppet" and model.digest == node.model.model_id
    shown = llama.show("puppet")
    assert shown.capabilities == ["completion", "tools", "thinking"]
    assert shown.modelinfo is not None and shown.modelinfo["llama.context_length"] == 4096
    assert llama.ps().models == []
    with urllib.request.urlopen(f"{node.url}/api/version") as answer:
        assert b'"version"' in answer.read()


@pytest.mark.parametrize("stream", [False, True])
def test_ollama_chats_with_tools(llama: ollama.Client, stream: bool) -> None:
    answer = llama.chat(model="puppet", messages=ASKED, tools=[WEATHER], options=GREEDY, stream=stream)
    parts = list(answer) if stream else [answer]
    assert "".join(part.message.content or "" for part in parts) == WORDS[0]
    (call,) = [call for part in parts for call in part.message.tool_calls or ()]
    assert call.function.name == "weather" and call.function.arguments == {"city": "Oslo"}
    assert parts[-1].done and parts[-1].done_reason == "stop" and parts[-1].eval_count == len(WORDS) + 1


def test_ollama_generates(llama: ollama.Client) -> None:
    said = llama.generate(model="puppet", prompt="?", raw=True, options={**GREEDY, "num_predict": 1})
    assert said.response == WORDS[0] and said.done_reason == "length"
    chat = [part.response for part in llama.generate(model="puppet", prompt="rain", options=GREEDY, stream=True)]
    assert "".join(chat) == "".join(WORDS)
    assert llama.generate(model="puppet", prompt="").done_reason == "load"


def test_ollama_takes_a_form(llama: ollama.Client) -> None:
    form = {"enum": ["yes", "no"]}
    assert llama.chat(model="puppet", messages=ASKED, format=form).message.content in ('"yes"', '"no"')


def test_ollama_refuses_in_its_own_form(llama: ollama.Client, node: Serving) -> None:
    with pytest.raises(ollama.ResponseError, match="no model is called 'nothing'"):
        llama.chat(model="nothing", messages=ASKED)
    with pytest.raises(ollama.ResponseError, match="mirostat"):
        llama.chat(model="puppet", messages=ASKED, options={"mirostat": 1})
    with pytest.raises(ollama.ResponseError, match="needs the token"):
        llama.pull("smollm2")
    token = token_of(node.data_dir)
    with (
        ollama.Client(host=node.url, headers={"Authorization": f"Bearer {token}"}) as owner,
        pytest.raises(ollama.ResponseError, match="no data directory"),
    ):
        owner.pull("smollm2")


def test_a_browser_gets_a_page(node: Serving) -> None:
    with urllib.request.urlopen(node.url) as page:
        assert page.headers.get_content_type() == "text/html" and f"{node.url}/v1".encode() in page.read()
