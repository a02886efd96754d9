"""Tools that a program offers to the model, read strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from node.gateway.http.errors import invalid

NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
MAX_TOOLS = 512
MAX_TOOL_CHARACTERS = 1 << 18
"""Of all tools together, as JSON."""
ANY_OBJECT: dict[str, Any] = {"type": "object"}


class Tool(Struct, frozen=True):
    """A function that the model may call."""

    name: str
    parameters: dict[str, Any]
    """JSON schema of its arguments."""
    given: dict[str, Any]
    """As the program described it, in OpenAI's form, for the chat template."""


class Tools(Struct, frozen=True):
    """What may be called in an answer, and what must be."""

    offered: tuple[Tool, ...]
    must_call: bool = False
    """Whether the answer is a call, and nothing else."""
    may_call: bool = True
    parallel: bool = True
    """Whether there may be more than one call."""

    @property
    def described(self) -> list[dict[str, Any]]:
        """For the chat template."""
        return [tool.given for tool in self.offered]


def read_tools(body: Mapping[str, Any]) -> Tools | None:
    """Read tools, tool_choice and parallel_tool_calls; None if no tool is offered. Raises ApiError 400."""
    given, choice = body.get("tools"), body.get("tool_choice")
    if not isinstance(given, list | None):
        raise invalid("tools must be a list", "tools")
    if not given:
        if choice not in (None, "none", "auto"):
            raise invalid("tool_choice asks for a tool, but no tools are given", "tool_choice")
        return None
    if len(given) > MAX_TOOLS:
        raise invalid(f"there are {len(given)} tools, {MAX_TOOLS} at most: give fewer", "tools")
    offered = tuple(_tool(tool, f"tools[{index}]") for index, tool in enumerate(given))
    if len({tool.name for tool in offered}) < len(offered):
        raise invalid("two tools have one name: give each its own", "tools")
    if sum(len(json.dumps(tool.given)) for tool in offered) > MAX_TOOL_CHARACTERS:
        raise invalid(f"the tools have more than {MAX_TOOL_CHARACTERS} characters: describe them shorter", "tools")
    parallel = body.get("parallel_tool_calls")
    if not isinstance(parallel, bool | None):
        raise invalid("parallel_tool_calls must be true or false", "parallel_tool_calls")
    return _chosen(Tools(offered, parallel=parallel is not False), choice)


def _chosen(tools: Tools, choice: Any) -> Tools:
    if choice in (None, "auto"):
        return tools
    if choice == "none":
        return Tools(tools.offered, may_call=False)
    if choice == "required":
        return Tools(tools.offered, must_call=True, parallel=tools.parallel)
    named = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    name = named.get("name") if isinstance(named, dict) else None
    if not isinstance(name, str):
        raise invalid('tool_choice is "none", "auto", "required", or names a function', "tool_choice")
    one = tuple(tool for tool in tools.offered if tool.name == name)
    if not one:
        known = ", ".join(tool.name for tool in tools.offered)
        raise invalid(f"tool_choice names {name[:64]!r}; the tools are: {known[:512]}", "tool_choice")
    return Tools(one, must_call=True, parallel=False)


def _tool(tool: Any, where: str) -> Tool:
    kind = tool.get("type") if isinstance(tool, dict) else None
    function = tool.get("function") if kind == "function" else None
    if not isinstance(function, dict):
        raise invalid(f'{where} must have type "function" and a function: other tools cannot be called here', where)
    name = function.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise invalid(f"{where}.function.name must be 1 to 128 letters, digits, _, -, ., : or /", f"{where}.function")
    if not isinstance(function.get("description"), str | None):
        raise invalid(f"{where}.function.description must be text", f"{where}.function")
    parameters = function.get("parameters")
    if not isinstance(parameters, dict | None):
        raise invalid(f"{where}.function.parameters must be a JSON schema", f"{where}.function")
    schema = parameters or ANY_OBJECT
    described = {"name": name, "description": function.get("description") or "", "parameters": schema}
    return Tool(name, schema, {"type": "function", "function": described})
