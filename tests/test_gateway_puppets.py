"""Models that say exactly what they are told to, asked through the gateway as a user would."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gateway_fakes import Serving, serving
from puppets import write_puppet
from safetensors.numpy import load_file, save_file

from node.engine.request import Completed, Failed, Token
from node.model.sampling import SamplingParams
from node.store.hf.layout import EMBEDDING
from node.store.importer import import_checkpoint

A, B = ord("a"), ord("b")
ENDLESS = SamplingParams(max_tokens=1 << 15)
LONG_CONTEXT = {"max_position_embeddings": 1 << 16}


def post(node: Serving, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
    """Status and body of one request without streaming."""
    content = json.dumps({"model": "puppet", **body}).encode()
    asked = urllib.request.Request(node.url + path, content, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


@contextmanager
def another_streams(node: Serving) -> Iterator[None]:
    """Somebody else's answer is under way all through the block and goes on after it."""
    other = node.ask("other", "ab", ENDLESS)
    while not isinstance(other.next(), Token):
        pass
    yield
    count = next(running.answer.num_tokens for running, _mode in node.engine.requests())
    while not (isinstance(event := other.next(), Token) and event.index > count):
        pass
    node.engine.cancel("other")
    ended = other.finish()
    assert isinstance(ended, Completed) and ended.receipt.finish_reason == "cancelled"


@pytest.mark.parametrize("stream", [False, True])
def test_a_token_that_the_model_lacks_is_a_400_for_its_asker_alone(tmp_path: Path, stream: bool) -> None:
    """The tokenizer knows `<pad>`, the embedding has no row for it: who writes it ends nobody else's answer."""
    checkpoint = write_puppet(
        tmp_path / "checkpoint", {A: B, B: A}, special=["<pad>"], vocab_size=256, config=LONG_CONTEXT
    )
    with serving(tmp_path / "data", checkpoint) as node, another_streams(node):
        for path, asked in (
            ("/v1/completions", {"prompt": "a<pad>b"}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a<pad>b"}]}),
        ):
            status, body = post(node, path, **asked, stream=stream, privacy="local")
            assert status == 400, body
            assert "'<pad>'" in body["error"]["message"] and body["error"]["code"] == "invalid_value"


def test_a_request_that_fails_ends_alone(tmp_path: Path) -> None:
    """The embedding of one token is damaged: only answers that come to it cannot go on."""
    checkpoint = write_puppet(tmp_path / "checkpoint", {A: B, B: A, ord("m"): ord("n")}, config=LONG_CONTEXT)
    tensors = load_file(checkpoint / "model.safetensors")
    tensors[EMBEDDING][ord("n")] = np.nan
    save_file(tensors, checkpoint / "model.safetensors")
    with serving(tmp_path / "data", checkpoint) as node, another_streams(node):
        for prompt in ("n", "amnab", "m"):  # alone, in the middle of a prompt, as a token of the answer
            ended = node.ask(f"damaged {prompt}", prompt, ENDLESS).finish()
            assert isinstance(ended, Failed) and "not finite numbers" in ended.message


def test_bytes_that_are_no_text_stream_as_what_they_are(tmp_path: Path) -> None:
    """A model that goes on for ever in bytes of which none begins a character: each is U+FFFD when it comes."""
    checkpoint = write_puppet(tmp_path / "checkpoint", {A: 0x80, 0x80: 0x81, 0x81: 0x80})
    with serving(tmp_path / "data", checkpoint) as node:
        asked = node.ask("bytes", "a", SamplingParams(max_tokens=40))
        ended = asked.finish()
        texts = [event.text for event in asked.heard if isinstance(event, Token)]
        assert texts == ["\ufffd"] * 40
        assert isinstance(ended, Completed) and ended.receipt.text == "\ufffd" * 40


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"stop": "<|eot|>"}, "abc"),
        ({"stop": ["zebra", "<|eot|>"]}, "abc"),
        ({"stop": "c<|eot|>d"}, "ab"),
        ({"stop": "<|eot|>e"}, "abcdef"),
        ({"stop": "cd"}, "ab"),
        ({"stop": ["eot", "|", "<"]}, "abcdef"),
        ({"stop_token_ids": [256]}, "abc"),
        ({"stop_token_ids": [ord("d"), 257]}, "abcd"),
        ({"stop_token_ids": []}, "abcdef"),
        ({"stop": "<|end|>", "ignore_eos": True}, "abcdef"),
    ],
)
def test_an_answer_ends_at_special_tokens(tmp_path: Path, asked: dict[str, Any], text: str) -> None:
    """abc<|eot|>def<|end|>, of which the last alone is the model's own end."""
    chain = [ord("x"), *b"abc", 256, *b"def", 257]
    checkpoint = write_puppet(
        tmp_path / "checkpoint",
        dict(pairwise(chain)),
        special=["<|eot|>", "<|end|>"],
        config={"eos_token_id": 257},
    )
    with serving(tmp_path / "data", checkpoint) as node:
        status, body = post(node, "/v1/completions", prompt="x", max_tokens=20, temperature=0, **asked)
        assert (status, body["choices"][0]["text"], body["choices"][0]["finish_reason"]) == (200, text, "stop")


@pytest.mark.parametrize("limit", [None, 0, -1, "many", 1.5, True, 3])
def test_a_model_s_own_limit_that_makes_no_sense_is_not_the_asker_s_mistake(tmp_path: Path, limit: Any) -> None:
    checkpoint = write_puppet(tmp_path / "checkpoint", {A: B, B: A}, config={"max_position_embeddings": 8})
    (checkpoint / "generation_config.json").write_text(json.dumps({"max_new_tokens": limit}))
    with serving(tmp_path / "data", checkpoint) as node:
        status, body = post(node, "/v1/chat/completions", messages=[{"role": "user", "content": "a"}])
        assert status == 200, body
        assert body["choices"][0]["message"]["content"] == ("bab" if limit == 3 else "bababab")


def test_a_program_names_the_model_that_guesses(tmp_path: Path) -> None:
    checkpoint = write_puppet(tmp_path / "checkpoint", {A: B, B: A}, config=LONG_CONTEXT)
    with serving(tmp_path / "node", checkpoint) as node:
        models = node.data_dir / "models"
        import_checkpoint(write_puppet(tmp_path / "close", {A: B}, config=LONG_CONTEXT), models, "close")
        import_checkpoint(write_puppet(tmp_path / "other", {A: B}, special=["<x>"]), models, "other")
        asked = {"prompt": "ab", "max_tokens": 21, "speculate": 4}
        status, plain = post(node, "/v1/completions", prompt="ab", max_tokens=21)
        status, answer = post(node, "/v1/completions", draft="close", **asked)
        assert status == 200 and answer["choices"][0]["text"] == plain["choices"][0]["text"] == "ab" * 10 + "a"
        told = answer["kekahyde"]["speculation"]
        assert told["draft"] == "close" and told["right"] == told["passes"] == 10
        status, answer = post(node, "/v1/completions", draft="nobody", **asked)
        assert status == 404 and "no model is called 'nobody'" in answer["error"]["message"]
        status, answer = post(node, "/v1/completions", draft="other", **asked)
        assert status == 400 and answer["error"]["param"] == "draft"
        assert "another vocabulary than puppet" in answer["error"]["message"]
        status, answer = post(node, "/v1/completions", draft=3, **asked)
        assert status == 400 and answer["error"]["param"] == "draft"
