"""Chat templates: turn messages into the prompt format of a model, byte for byte as `transformers` renders it.

A template comes with the model and is an untrusted program. It runs in jinja2's immutable sandbox on plain JSON
values, and its output is limited. The environment is that of `transformers/utils/chat_template_utils.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from node.errors import CorruptModelError, PromptError
from node.model.named_tokens import special_tokens, template_source, tokenizer_config

MAX_PROMPT_CHARACTERS = 1 << 24


class ChatTemplate:
    """A compiled chat template with the special tokens that it may name."""

    def __init__(self, source: str, special_tokens: Mapping[str, str] | None = None) -> None:
        """Raises CorruptModelError if the template is not valid jinja2."""
        self.source = source
        self._special_tokens = dict(special_tokens or {})
        try:
            self._template = _environment().from_string(source)
        except Exception as exc:  # the compiler computes and writes down what the template says is constant
            raise CorruptModelError(f"the model's chat template is not valid: {exc}; prompt without it") from exc

    @classmethod
    def from_folder(cls, folder: Path) -> ChatTemplate | None:
        """The template of a checkpoint or an imported model; None if it has none."""
        config = tokenizer_config(folder)
        source = template_source(folder, config)
        return None if source is None else cls(source, special_tokens(config))

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt for `messages`, each with role and content.

        Args:
            values: more names that the template may use.

        Raises:
            PromptError: the template refuses the messages, or fails on them.
        """
        try:
            prompt = self._template.render(
                _plain([values or {}])[0],
                messages=_plain(messages),
                tools=None if tools is None else _plain(tools),
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        except jinja2.TemplateError as exc:
            raise PromptError(f"the model's chat template refuses these messages: {exc}; change them") from exc
        except Exception as exc:  # a template can raise any exception of operations on JSON values
            raise PromptError(
                f"the model's chat template fails on these messages ({type(exc).__name__}: {exc}); change them"
            ) from exc
        if len(prompt) > MAX_PROMPT_CHARACTERS:
            raise PromptError(f"the rendered chat has {len(prompt)} characters; shorten it")
        return prompt


def _plain(values: Sequence[Mapping[str, Any]]) -> Any:
    """A copy with only JSON values, so that the template gets no object with dangerous methods."""
    return json.loads(json.dumps([dict(value) for value in values]))


class _Generation(Extension):
    """`{% generation %}` marks the assistant's words for training; in a prompt they are unchanged."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(jinja2.utils.Namespace):
    """jinja2's namespace without the underscored attributes, through which a template could leave the sandbox."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *values = args
        for name in dict(*values, **kwargs):
            _refuse_underscore(name)
        jinja2.utils.Namespace.__init__(self, *values, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        super().__setitem__(name, value)


def _refuse_underscore(name: object) -> None:
    if str(name).startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot have the attribute {name}")


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, in which a product and a power have a size, too. What a template adds or formats step by step is
    bounded by the prompt's limit at its end alone."""

    intercepted_binops = frozenset(("*", "**"))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """The result; raises SecurityError where it would be too large."""
        if _product_size(operator, left, right) > MAX_PROMPT_CHARACTERS:
            raise jinja2.exceptions.SecurityError(f"a result of {operator} is too large")
        return super().call_binop(context, operator, left, right)


def _product_size(operator: str, left: Any, right: Any) -> float:
    """Items of the result, or bits of a number; 0 where it is none of either."""
    for items, factor in ((left, right), (right, left)):
        if operator == "*" and isinstance(items, str | bytes | list | tuple) and isinstance(factor, int):
            return len(items) * factor
    if isinstance(left, int) and isinstance(right, int):
        return left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
    return 0


def _environment() -> ImmutableSandboxedEnvironment:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols], optimized=False
    )
    environment.filters["tojson"] = _tojson
    environment.globals["namespace"] = _Namespace
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _raise_exception(message: object) -> NoReturn:
    raise jinja2.TemplateError(str(message))


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """jinja2's own filter escapes HTML, which no model was trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
