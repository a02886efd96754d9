"""`conversation_put`, `conversation_drop`, `conversations`: what interfaces keep in the node's memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.conversations import MAX_CONVERSATION_CHARACTERS
from node.errors import OperationError
from node.node import Node

MAX_ID_CHARACTERS = 64


def conversation_put(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Keep `text` under `conversation` until the node ends or others need the room."""
    text = arguments.get("text")
    if not isinstance(text, str) or len(text) > MAX_CONVERSATION_CHARACTERS:
        raise OperationError(f"`text` is not a string of at most {MAX_CONVERSATION_CHARACTERS} characters")
    node.conversations.put(_id(arguments), text)
    return {}


def conversation_drop(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Forget `conversation`."""
    return {"dropped": node.conversations.drop(_id(arguments))}


def conversations(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """All that is kept: texts by id, the most recently changed last."""
    return {"conversations": node.conversations.all()}


def _id(arguments: Mapping[str, Any]) -> str:
    name = arguments.get("conversation")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_ID_CHARACTERS or not name.isalnum():
        raise OperationError(f"`conversation` is not an id of 1 to {MAX_ID_CHARACTERS} letters and digits")
    return name
