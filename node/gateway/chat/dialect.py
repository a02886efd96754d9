"""How a model writes tool calls and thoughts, found from its chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from msgspec import Struct

from node.gateway.chat.form import json_rule
from node.gateway.chat.tools import Tool, Tools

TEXT = r"/(.|\n)*/"
THOUGHT_BEGINS, THOUGHT_ENDS = "<think>", "</think>"


class Dialect(Struct, frozen=True):
    """One way to write calls: each is a JSON object with the name and the arguments of a function."""

    name: str
    begins: str
    """Before a call, or before all of them; empty where an answer that begins with { is a call."""
    ends: str = ""
    """After a call; empty where calls are the rest of the answer."""
    arguments: str = "arguments"
    """The key of the arguments."""
    listed: bool = False
    """Whether the calls of an answer are one JSON list."""

    @property
    def markers(self) -> tuple[str, ...]:
        """Words that may be special tokens and must be read all the same."""
        return tuple(word for word in (self.begins, self.ends) if word)


HERMES = Dialect("hermes", "<tool_call>", "</tool_call>")
"""Hermes 2 and 3, Qwen 2.5 and 3, SmolLM 2 and 3: https://github.com/NousResearch/Hermes-Function-Calling"""
MISTRAL = Dialect("mistral", "[TOOL_CALLS]", listed=True)
"""Mistral from version 3 of its tokenizer on."""
LLAMA = Dialect("llama", "<|python_tag|>", arguments="parameters")
"""Llama 3.1 and later, whose calls may also begin without the marker."""
DIALECTS = (HERMES, MISTRAL, LLAMA)


def dialect_of(template: str) -> Dialect | None:
    """The dialect whose marker a template names; None for a template that knows no tools."""
    if "tools" not in template:
        return None
    return next((dialect for dialect in DIALECTS if dialect.begins in template), None)


class Thinking(Struct, frozen=True):
    """Whether an answer may begin with a thought, and whether the prompt has already begun it."""

    possible: bool = False
    begun: bool = False


def thinking_of(template: str, prompt: str) -> Thinking:
    """How an answer to a rendered prompt may begin."""
    possible = THOUGHT_ENDS in template
    return Thinking(possible, possible and prompt.rstrip().endswith(THOUGHT_BEGINS))


class GrammarWriter:
    """Writes Lark grammars of answers.

    Args:
        special: ids of the words that can be named only by their token.
    """

    def __init__(self, special: Mapping[str, int]) -> None:
        self._special = special
        self._rules: list[str] = []

    def calls(self, tools: Tools, dialect: Dialect, thinking: Thinking) -> str:
        """The grammar of an answer that may, or must, call tools."""
        one = " | ".join(self._call(index, tool, dialect) for index, tool in enumerate(tools.offered))
        self._rules.append(f"call: {one}")
        open_, close = self._marker(dialect.begins), self._marker(dialect.ends)
        if tools.must_call:
            return self._written(self._forced(tools, dialect, open_, close), thinking)
        if dialect is HERMES:
            self._lazily("trigger", dialect.begins)
            self._rules.append(f'tagged: trigger "\\n" call "\\n" {close}')
            return self._written(f"tagged* {TEXT}" if tools.parallel else f"tagged | {TEXT}", Thinking())
        if dialect is MISTRAL:
            self._lazily("trigger", dialect.begins)
            return self._written(f"trigger {self._list(tools)} | {TEXT}", Thinking())
        tag = f"{open_}?" if dialect.begins in self._special else ""
        return self._written(rf"{tag} call | /([^{{](.|\n)*)?/", Thinking())

    def text(self, lark: str, thinking: Thinking) -> str:
        """The grammar of an answer that is one expression, after a thought where the model has one."""
        return self._written(lark, thinking)

    def _forced(self, tools: Tools, dialect: Dialect, open_: str, close: str) -> str:
        if dialect is HERMES:
            self._rules.append(f'tagged: {open_} "\\n" call "\\n" {close}')
            return 'tagged ("\\n" tagged)*' if tools.parallel else "tagged"
        if dialect is MISTRAL:
            return f"{open_} {self._list(tools)}"
        return "call"

    @staticmethod
    def _list(tools: Tools) -> str:
        return '"[" call (", " call)* "]"' if tools.parallel else '"[" call "]"'

    def _call(self, index: int, tool: Tool, dialect: Dialect) -> str:
        head = f'{{"name": {json.dumps(tool.name)}, {json.dumps(dialect.arguments)}: '
        self._rules.append(f'call_{index}: {json.dumps(head)} {json_rule(tool.parameters)} "}}"')
        return f"call_{index}"

    def _written(self, start: str, thinking: Thinking) -> str:
        if thinking.possible:
            self._lazily("thought", THOUGHT_ENDS)
            begins = "" if thinking.begun else f"{self._marker(THOUGHT_BEGINS)} "
            self._rules.append(rf"before: {begins}thought /\s*/")
            start = f"before ({start})" if thinking.begun else f"before? ({start})"
        return "\n".join(["%llguidance {}", f"start: {start}", *self._rules]) + "\n"

    def _lazily(self, rule: str, word: str) -> None:
        """A rule for any text up to the first occurrence of a word."""
        if word in self._special:
            self._rules.append(f"{rule}: {TEXT} {self._marker(word)}")
        else:
            self._rules.append(f"{rule}[lazy]: {TEXT} {json.dumps(word)}")

    def _marker(self, word: str) -> str:
        return f"<[{self._special[word]}]>" if word in self._special else json.dumps(word)


def instructions(tools: Sequence[Tool]) -> str:
    """What a model is told whose template knows no tools, when a call is required: the form of Hermes."""
    described = "\n".join(json.dumps(tool.given, ensure_ascii=False) for tool in tools)
    return (
        "You may call these functions:\n"
        f"{described}\n"
        "Answer with a call, as a JSON object with the function's name and its arguments, like this:\n"
        '<tool_call>\n{"name": "NAME", "arguments": {}}\n</tool_call>'
    )
