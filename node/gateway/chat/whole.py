"""Answers that are sent in one piece."""

from __future__ import annotations

from node.engine.request import Completed
from node.gateway.chat.answer import Answer
from node.gateway.chat.prepare import Prepared
from node.gateway.chat.stream import generations
from node.gateway.http.context import GatewayContext


async def whole_answers(context: GatewayContext, prepared: Prepared) -> list[Answer]:
    """All answers, complete. Raises ApiError as soon as one of them fails."""
    answers = [Answer(prepared, index) for index in range(len(prepared.requests))]
    for answer in answers:
        answer.opening()
    left = len(answers)
    async with generations(context.engine, prepared.requests) as events:
        while left:
            for index, event in await events.take():
                answers[index].read(event)
                left -= isinstance(event, Completed)
    return answers
