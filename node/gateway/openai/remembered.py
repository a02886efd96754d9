"""The conversations that `previous_response_id` continues: in memory only, and bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from node.gateway.http.errors import ApiError

MAX_RESPONSES = 256
MAX_CHARACTERS = 16 << 20
"""Of all remembered messages; a conversation counts with each of its responses."""


class Remembered:
    """Messages by response; the oldest are forgotten first. Only the gateway's loop uses it."""

    def __init__(self) -> None:
        self._messages: OrderedDict[str, tuple[list[dict[str, Any]], int]] = OrderedDict()
        self._characters = 0

    def of(self, response_id: object) -> list[dict[str, Any]]:
        """The messages up to a response; none for None. Raises ApiError 404 for what is not remembered."""
        if response_id is None:
            return []
        if not isinstance(response_id, str) or response_id not in self._messages:
            said = f"the response {str(response_id)[:64]!r} is not remembered: send the whole conversation as input"
            raise ApiError(404, said, "previous_response_not_found", "previous_response_id")
        return self._messages[response_id][0]

    def keep(self, response_id: str, messages: Sequence[dict[str, Any]]) -> None:
        """Remember the messages up to a response."""
        size = sum(len(str(message)) for message in messages)
        self._messages[response_id] = (list(messages), size)
        self._characters += size
        while len(self._messages) > MAX_RESPONSES or self._characters > MAX_CHARACTERS:
            _, (_, freed) = self._messages.popitem(last=False)
            self._characters -= freed


REMEMBERED = web.AppKey("remembered", Remembered)
