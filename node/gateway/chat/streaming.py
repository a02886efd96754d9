"""One answer as a stream: the loop that Anthropic's, Ollama's and the Responses API share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from aiohttp import web

from node.engine.request import Completed
from node.gateway.chat.answer import Answer
from node.gateway.chat.prepare import Prepared
from node.gateway.chat.reply import Piece
from node.gateway.chat.sse import EventWriter
from node.gateway.chat.stream import generations
from node.gateway.http.context import CONTEXT
from node.gateway.http.errors import ApiError

Objects = Iterable[dict[str, Any]]


class StreamForm(Protocol):
    """Builds the objects of one API."""

    def opening(self) -> Objects:
        """Before the first token."""

    def pieces(self, answer: Answer, pieces: Sequence[Piece]) -> Objects:
        """More of the answer."""

    def closing(self, answer: Answer) -> Objects:
        """The end of a complete answer."""

    def failure(self, error: ApiError) -> Objects:
        """The end of an answer that failed."""


async def stream_answer(
    request: web.Request,
    prepared: Prepared,
    form: StreamForm,
    writer: EventWriter,
    frames: Callable[[Objects], list[bytes]],
    completed: Callable[[Answer], None] = lambda answer: None,
) -> web.StreamResponse:
    """Stream the only answer of a request.

    Args:
        frames: objects as they are sent.
        completed: called with the complete answer, before its end is sent.
    """
    answer = Answer(prepared, 0)
    async with generations(request.app[CONTEXT].engine, prepared.requests) as events:
        await writer.open()
        try:
            await writer.write(frames(form.opening()))
            over = False
            while not over:
                due: list[bytes] = []
                for _, event in await events.take(writer.due_s):
                    try:
                        due += frames(form.pieces(answer, answer.read(event)))
                    except ApiError as exc:
                        due += frames(form.failure(exc))
                        over = True
                    if isinstance(event, Completed):
                        completed(answer)
                        due += frames(form.closing(answer))
                        over = True
                await writer.write(due)
            return await writer.close()
        except (TimeoutError, ConnectionError):
            return writer.abort()
