"""The official `openai` client against the gateway: what it can ask for, and each form of refusal."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from gateway_fakes import Serving, serving
from waiting import until

STORY = {"model": "story", "messages": [{"role": "user", "content": "Once upon a time"}], "max_tokens": 12, "seed": 1}
TEXT = {"model": "story", "prompt": "Once upon a time", "max_tokens": 12, "seed": 1}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("openai")) as node:
        yield node


@pytest.fixture(scope="module")
def client(node: Serving) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{node.url}/v1", api_key="any", max_retries=0, timeout=30) as client:
        yield client


def test_models(client: openai.OpenAI, node: Serving) -> None:
    assert [model.id for model in client.models.list()] == ["story"]
    model = client.models.retrieve("story")
    assert (model.object, model.owned_by) == ("model", "kekahyde")
    assert client.models.retrieve(node.model.model_id).id == "story"
    with pytest.raises(openai.NotFoundError, match="no model is called 'nothing'; the models are: story"):
        client.models.retrieve("nothing")


def test_a_model_is_listed_by_each_of_its_names(tmp_path: Path) -> None:
    with serving(tmp_path) as node, openai.OpenAI(base_url=f"{node.url}/v1", api_key="any") as client:
        path = tmp_path / "models" / "names.json"
        registry = json.loads(path.read_text())
        registry["names"]["also"] = node.model.model_id
        path.write_text(json.dumps(registry))
        until(lambda: {model.id for model in client.models.list()} == {"story", "also"}, "a listing is kept a moment")
        assert client.models.retrieve("story").id == "story"


def test_a_plain_chat_has_text_usage_and_receipt(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**STORY)
    assert answer.object == "chat.completion" and answer.model == "story"
    (choice,) = answer.choices
    assert choice.message.role == "assistant" and choice.message.content and choice.finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    receipt = answer.model_extra["kekahyde"]
    assert (receipt["mode"], receipt["asked"], receipt["tokens"]) == ("local", "auto", 12)
    assert receipt["chunks"]["merged"] == receipt["chunks"]["local"] >= 12 * 24
    assert "text" not in receipt


def test_a_streamed_chat_is_the_plain_one_in_pieces(client: openai.OpenAI) -> None:
    plain = client.chat.completions.create(**STORY)
    chunks = list(client.chat.completions.create(**STORY, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == plain.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert chunks[-1].model_extra["kekahyde"]["tokens"] == 12
    assert len({chunk.id for chunk in chunks}) == 1
    assert all("usage" not in (chunk.model_extra or {}) and chunk.usage is None for chunk in chunks)


def test_usage_of_a_stream_comes_last_where_it_is_wanted(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(**STORY, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12
    assert chunks[-2].choices[0].finish_reason == "length"


def test_completions_plain_streamed_and_of_tokens(client: openai.OpenAI, node: Serving) -> None:
    plain = client.completions.create(**TEXT)
    text = plain.choices[0].text
    assert plain.object == "text_completion" and text and plain.usage is not None
    streamed = "".join(chunk.choices[0].text for chunk in client.completions.create(**TEXT, stream=True))
    token_ids = node.model.tokenizer().encode(str(TEXT["prompt"]))
    assert streamed == text == client.completions.create(**{**TEXT, "prompt": token_ids}).choices[0].text
    assert text == client.completions.create(**{**TEXT, "prompt": [TEXT["prompt"]]}).choices[0].text


def test_a_seed_repeats_a_text_and_another_does_not(client: openai.OpenAI) -> None:
    def text(seed: int) -> str | None:
        wanted = {**STORY, "seed": seed, "temperature": 1.0, "top_p": 0.95, "max_tokens": 24}
        return client.chat.completions.create(**wanted).choices[0].message.content

    assert text(5) == text(5) != text(6)
    assert text(-1) == text(-1)


def test_stop_ends_the_text_before_it(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**STORY).choices[0].message.content
    assert whole is not None
    word = whole.split()[4]
    for stop in (word, [word, "zebra"]):
        answer = client.chat.completions.create(**STORY, stop=stop)
        assert answer.choices[0].finish_reason == "stop"
        assert answer.choices[0].message.content == whole[: whole.index(word)]


def test_sampling_beyond_openai_and_penalties(client: openai.OpenAI) -> None:
    extra = {"top_k": 5, "min_p": 0.01, "repetition_penalty": 1.1, "privacy": "local"}
    answer = client.chat.completions.create(**STORY, temperature=0.7, extra_body=extra)
    assert answer.model_extra["kekahyde"]["asked"] == "local"
    greedy = {**STORY, "max_tokens": 48, "temperature": 0}
    plain = client.chat.completions.create(**greedy).choices[0].message.content
    varied = client.chat.completions.create(**greedy, frequency_penalty=2, presence_penalty=1.5).choices[0].message
    assert varied.content != plain


def test_max_completion_tokens_and_parts_of_text(client: openai.OpenAI) -> None:
    parts = [{"type": "text", "text": "Once upon "}, {"type": "text", "text": "a time"}]
    wanted: dict[str, Any] = {"model": "story", "messages": [{"role": "user", "content": parts}], "seed": 1}
    answer = client.chat.completions.create(**wanted, max_completion_tokens=12)
    assert answer.choices[0].message.content == client.chat.completions.create(**STORY).choices[0].message.content


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"content": None}, ""),
        ({}, ""),
        ({"content": ""}, ""),
        ({"content": []}, ""),
        ({"content": None, "refusal": None, "audio": None, "tool_calls": None, "function_call": None}, ""),
        ({"content": None, "refusal": "No."}, "No."),
        ({"content": [{"type": "text", "text": "I "}, {"type": "refusal", "refusal": "won't."}]}, "I won't."),
    ],
)
def test_whatever_an_assistant_may_have_said_is_read_again(
    client: openai.OpenAI, said: dict[str, Any], text: str
) -> None:
    """A history is sent with every turn: what it holds once would otherwise end the conversation for good."""

    def answer(assistant: dict[str, Any]) -> str | None:
        turns: list[Any] = [*STORY["messages"], {"role": "assistant", **assistant}, STORY["messages"][0]]
        return client.chat.completions.create(**{**STORY, "messages": turns}).choices[0].message.content

    assert answer(said) == answer({"content": text})


def test_the_privacy_mode_is_a_header_too(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**STORY, extra_headers={"X-Kekahyde-Privacy": "strict"})
    receipt = answer.model_extra["kekahyde"]
    assert (receipt["asked"], receipt["mode"]) == ("strict", "local")
    assert "strict needs a peer" in receipt["note"], "nobody is there: computed here, and said so"
    chunks = receipt["chunks"]
    assert chunks["merged"] == chunks["local"] == 12 * 24, "each counted once"
    with pytest.raises(openai.BadRequestError, match="differ"):
        client.chat.completions.create(
            **STORY, extra_headers={"X-Kekahyde-Privacy": "strict"}, extra_body={"privacy": "local"}
        )


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "n": ({"n": 100}, "n"),
    "best_of": ({"n": 2, "extra_body": {"best_of": 1}}, "best_of"),
    "top_logprobs": ({"top_logprobs": 2}, "top_logprobs"),
    "logprobs": ({"extra_body": {"logprobs": 3}}, "logprobs"),
    "a tool that is no function": ({"tools": [{"type": "web_search"}]}, "tools[0]"),
    "a tool's name": ({"tools": [{"type": "function", "function": {"name": "f g"}}]}, "tools[0].function"),
    "tool_choice": ({"tool_choice": "required"}, "tool_choice"),
    "a tool that is not offered": (
        {
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "tool_choice": {"type": "function", "function": {"name": "g"}},
        },
        "tool_choice",
    ),
    "response_format": ({"response_format": {"type": "xml"}}, "response_format"),
    "a schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"uniqueItems": True}}}},
        "response_format",
    ),
    "a regex": ({"extra_body": {"guided_regex": "[a"}}, "guided_regex"),
    "a grammar": ({"extra_body": {"guided_grammar": "start: nothing"}}, "guided_grammar"),
    "two forms": ({"extra_body": {"guided_regex": "a", "guided_choice": ["a"]}}, "guided_choice"),
    "logit_bias": ({"logit_bias": {"1": 500}}, "logit_bias"),
    "min_tokens": ({"extra_body": {"min_tokens": 10_000}}, "min_tokens"),
    "suffix": ({"extra_body": {"suffix": "x"}}, "suffix"),
    "image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages[0].content",
    ),
    "role": ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    "a call's arguments": (
        {
            "messages": [
                {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{"}}]},
            ]
        },
        "messages[0].tool_calls[0]",
    ),
    "no messages": ({"messages": []}, "messages"),
    "no content": ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    "a user's refusal": (
        {"messages": [{"role": "user", "content": [{"type": "refusal", "refusal": "x"}]}]},
        "messages[0].content",
    ),
    "a part without text": (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content",
    ),
    "a number": ({"messages": [{"role": "assistant", "content": 1}]}, "messages[0].content"),
    "temperature": ({"temperature": -1}, "temperature"),
    "top_p": ({"top_p": 2}, "top_p"),
    "frequency_penalty": ({"frequency_penalty": 3}, "frequency_penalty"),
    "max_tokens": ({"max_tokens": 0}, "max_tokens"),
    "both limits": ({"max_completion_tokens": 13}, "max_tokens"),
    "stop": ({"stop": [1]}, "stop"),
    "stop ids": ({"extra_body": {"stop_token_ids": 3}}, "stop_token_ids"),
    "a stop id": ({"extra_body": {"stop_token_ids": ["x"]}}, "stop_token_ids"),
    "many stop ids": ({"extra_body": {"stop_token_ids": [1] * 300}}, "stop_token_ids"),
    "privacy": ({"extra_body": {"privacy": "none"}}, "privacy"),
    "unknown": ({"extra_body": {"colour": "red"}}, "colour"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_a_400_that_names_the_field(client: openai.OpenAI, name: str) -> None:
    wanted, param = REFUSED[name]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{**STORY, **wanted})
    assert refused.value.param == param
    body = refused.value.body
    assert isinstance(body, dict) and set(body) == {"message", "type", "param", "code"}
    assert body["type"] == "invalid_request_error" and body["message"]


def test_values_that_ask_for_nothing_special_are_taken(client: openai.OpenAI) -> None:
    client.chat.completions.create(
        **STORY, n=1, logprobs=False, tools=[], response_format={"type": "text"}, user="me", logit_bias={}
    )


def test_an_unknown_model_and_a_prompt_that_is_too_long(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(**{**STORY, "model": "../../etc/passwd"})
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(**{**STORY, "messages": [{"role": "user", "content": "cat " * 3000}]})
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="16 at most"):
        client.completions.create(**{**TEXT, "prompt": ["a"] * 17})
    with pytest.raises(openai.APIStatusError) as huge:
        client.completions.create(**{**TEXT, "prompt": "x" * (9 << 20)})
    assert huge.value.status_code == 413


def test_a_stream_that_is_closed_ends_the_work(client: openai.OpenAI, node: Serving) -> None:
    wanted = {**STORY, "max_tokens": 400, "extra_body": {"ignore_eos": True}}
    stream = client.chat.completions.create(**wanted, stream=True)
    next(iter(stream))
    stream.close()
    node.until_cancelled(1)


def test_a_plain_request_that_is_given_up_ends_the_work(node: Serving) -> None:
    with openai.OpenAI(base_url=f"{node.url}/v1", api_key="any", max_retries=0, timeout=0.1) as hasty:
        with pytest.raises(openai.APITimeoutError):
            hasty.chat.completions.create(**{**STORY, "max_tokens": 500, "extra_body": {"ignore_eos": True}})
        node.until_cancelled(1)


def test_metrics_count_what_was_said(client: openai.OpenAI, node: Serving) -> None:
    def value(name: str) -> float:
        lines = node_text(node, "/metrics").splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    before = value("kekahyde_generation_tokens_total")
    client.completions.create(**TEXT)
    assert value("kekahyde_generation_tokens_total") == before + 12
    assert value("kekahyde_num_requests_running") == 0
    assert value("kekahyde_time_to_first_token_seconds_count") >= 1
    assert '"status": "ok"' in node_text(node, "/health")


def node_text(node: Serving, path: str) -> str:
    with urllib.request.urlopen(node.url + path) as answer:
        return str(answer.read().decode())
