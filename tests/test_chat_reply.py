"""Answers taken apart: the pieces are the same however the text was cut, and no text is lost."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.gateway.chat.dialect import HERMES, LLAMA, MISTRAL, Dialect, Thinking
from node.gateway.chat.reply import CallArguments, CallBegins, ReplyReader, Text, Thought

Read = tuple[str, str, list[tuple[str, str]]]
"""Text, thought, and calls with their arguments."""
MAY_THINK, THINKS = Thinking(True), Thinking(True, True)
OSLO = '{"city": "Oslo {\\"}", "days": [1, {"n": 2}]}'
CALL = f'{{"name": "weather", "arguments": {OSLO}}}'
ANSWERS: dict[str, tuple[Dialect | None, Thinking, str, Read]] = {
    "text": (HERMES, Thinking(), "a < b <tool", ("a < b <tool", "", [])),
    "no tools": (None, Thinking(), f"<tool_call>{CALL}", (f"<tool_call>{CALL}", "", [])),
    "hermes": (HERMES, Thinking(), f"<tool_call>\n{CALL}\n</tool_call>", ("", "", [("weather", OSLO)])),
    "text and calls": (
        HERMES,
        Thinking(),
        f"Let me see.<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{CALL}\n</tool_call>",
        ("Let me see.", "", [("weather", OSLO)] * 2),
    ),
    "a list of calls": (
        HERMES,
        Thinking(),
        f"<tool_call>[{CALL}, {CALL}]</tool_call>",
        ("", "", [("weather", OSLO)] * 2),
    ),
    "another order": (
        HERMES,
        Thinking(),
        '<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call> done',
        (" done", "", [("f", '{"a": 1}')]),
    ),
    "arguments as text": (
        HERMES,
        Thinking(),
        '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>',
        ("", "", [("f", '{"a": 1}')]),
    ),
    "no call": (HERMES, Thinking(), "<tool_call>no JSON</tool_call>!", ("<tool_call>no JSON</tool_call>!", "", [])),
    "cut off": (HERMES, Thinking(), '<tool_call>{"name": "f", "argu', ('<tool_call>{"name": "f", "argu', "", [])),
    "llama": (
        LLAMA,
        Thinking(),
        '{"name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {}}',
        ("", "", [("f", '{"a": 1}'), ("g", "{}")]),
    ),
    "llama's tag": (
        LLAMA,
        Thinking(),
        '<|python_tag|>{"name": "f", "parameters": {"a": 1}}',
        ("", "", [("f", '{"a": 1}')]),
    ),
    "llama's text": (LLAMA, Thinking(), "see {x}", ("see {x}", "", [])),
    "mistral": (MISTRAL, Thinking(), f"[TOOL_CALLS][{CALL}, {CALL}]", ("", "", [("weather", OSLO)] * 2)),
    "a thought": (None, MAY_THINK, "<think>hm</think>\n\nyes", ("yes", "hm", [])),
    "a thought that had begun": (None, THINKS, "hm</think>yes", ("yes", "hm", [])),
    "a thought without end": (None, THINKS, "hm</thi", ("", "hm</thi", [])),
    "no thought": (None, MAY_THINK, "<thin>", ("<thin>", "", [])),
    "a thought and a call": (
        HERMES,
        MAY_THINK,
        f"<think>hm</think>\n<tool_call>\n{CALL}\n</tool_call>",
        ("", "hm", [("weather", OSLO)]),
    ),
}


def read(dialect: Dialect | None, thinking: Thinking, parts: Sequence[str], parallel: bool = True) -> Read:
    reader = ReplyReader(dialect, thinking, parallel)
    text = thought = ""
    calls: list[tuple[str, str]] = []
    for piece in [piece for part in parts for piece in reader.push(part)] + reader.finish():
        match piece:
            case Text(more):
                text += more
            case Thought(more):
                thought += more
            case CallBegins(index, name):
                assert index == len(calls)
                calls.append((name, ""))
            case CallArguments(index, more):
                assert index == len(calls) - 1
                calls[-1] = (calls[-1][0], calls[-1][1] + more)
    return text, thought, calls


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_read_alike_however_it_comes(name: str) -> None:
    dialect, thinking, answer, expected = ANSWERS[name]
    assert read(dialect, thinking, [answer]) == expected
    assert read(dialect, thinking, list(answer)) == expected
    for cut in range(len(answer)):
        assert read(dialect, thinking, [answer[:cut], answer[cut:]]) == expected


@given(st.sampled_from(sorted(ANSWERS)), st.data())
def test_any_three_parts(name: str, data: st.DataObject) -> None:
    dialect, thinking, answer, expected = ANSWERS[name]
    first, second = sorted(data.draw(st.tuples(st.integers(0, len(answer)), st.integers(0, len(answer)))))
    assert read(dialect, thinking, [answer[:first], answer[first:second], answer[second:]]) == expected


@given(st.lists(st.text("<>/_ tolca{}[]\"n:'\\TOOLCALS\n", max_size=8), max_size=12))
def test_nothing_fails_and_what_is_no_call_is_text(parts: list[str]) -> None:
    for dialect in (HERMES, MISTRAL, LLAMA, None):
        text, thought, calls = read(dialect, MAY_THINK, parts)
        if not calls and not thought and "<tool_call>" not in "".join(parts):
            assert "".join(text.split()) == "".join("".join(parts).split())


def test_arguments_come_as_they_grow() -> None:
    reader = ReplyReader(HERMES, Thinking())
    pieces = [piece for letter in f"<tool_call>{CALL}" for piece in reader.push(letter)]
    grown = [piece.text for piece in pieces if isinstance(piece, CallArguments)]
    assert len(grown) > 10 and json.loads("".join(grown)) == json.loads(OSLO)


def test_where_only_one_call_was_allowed_the_others_are_dropped() -> None:
    twice = f"<tool_call>{CALL}</tool_call><tool_call>{CALL}</tool_call>"
    assert read(HERMES, Thinking(), [twice], parallel=False) == ("", "", [("weather", OSLO)])
