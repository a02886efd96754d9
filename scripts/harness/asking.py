"""Answers of an engine in this process, whole: for scripts and tests that look at receipts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from node.engine import Engine, GenerationRequest
from node.engine.request import Completed, Token
from node.model.sampling import SamplingParams
from node.privacy import Privacy
from node.session.receipt import Receipt
from node.store.stored import StoredModel

_numbers = itertools.count(1)


def request_of(
    model: StoredModel, prompt: Sequence[int], params: SamplingParams, privacy: Privacy
) -> GenerationRequest:
    """A request whose text goes on from the prompt."""
    return GenerationRequest(f"ask {next(_numbers)}", model, tuple(prompt), params, privacy, True)


def answer(
    engine: Engine, model: StoredModel, prompt: Sequence[int], params: SamplingParams, privacy: Privacy
) -> tuple[list[int], Receipt]:
    """The tokens of an answer and its receipt. Raises KekahydeError where there is none."""
    tokens: list[int] = []
    for event in engine.ask(request_of(model, prompt, params, privacy)):
        if isinstance(event, Token):
            tokens.append(event.id)
        elif isinstance(event, Completed):
            return tokens, event.receipt
    raise AssertionError("an answer ends with a receipt")
