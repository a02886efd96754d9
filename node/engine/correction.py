"""What happens to an answer when a result that it used turns out to be wrong."""

from __future__ import annotations

from msgspec.structs import replace

from node.engine.running import Running
from node.errors import KekahydeError
from node.model.decoder import Decoder
from node.model.generate import Answer, GeneratedToken
from node.spans.chain import SpanLieError

MAX_LIES = 8
"""So many devices in a row may turn out to lie while an answer is computed again."""


class WrongTextError(KekahydeError):
    """Text that was already shown followed from a wrong result."""


def correct(running: Running, lie: SpanLieError, decoder: Decoder) -> None:
    """Compute again what followed from a wrong result, and choose every token of the answer again, with the same
    random numbers. If all are what was shown, the answer goes on as if nothing had happened.

    Raises:
        WrongTextError: a token that was shown is another one now.
    """
    for _ in range(MAX_LIES):
        try:
            _correct(running, lie, decoder)
            return
        except SpanLieError as other:
            lie = other
    raise lie


def _correct(running: Running, lie: SpanLieError, decoder: Decoder) -> None:
    cache = running.cache
    if cache is None or cache is not lie.cache:
        return
    prompt_ids, shown = running.answer.prompt_ids, running.shown_ids
    cache.truncate(lie.position)
    if not shown:
        running.pending = prompt_ids[cache.length :]
        return
    cache.truncate(len(prompt_ids) - 1)
    computed = [*prompt_ids, *shown[:-1]]
    logits = decoder.forward(computed[cache.length :], cache, all_logits=True)[-len(shown) :]
    again = _begun_again(running)
    for row, token_id in zip(logits, shown, strict=True):
        token = again.advance(row)[0]
        if not isinstance(token, GeneratedToken) or token.id != token_id:
            raise WrongTextError(
                f"{lie}: the text is wrong from token {again.num_tokens} on; the device is banned, ask again"
            )
    running.answer = again


def _begun_again(running: Running) -> Answer:
    request = running.request
    return Answer(
        request.model.config,
        request.model.tokenizer(),
        request.prompt_ids,
        replace(request.params, seed=running.answer.seed),
        request.continues,
        request.guide,
        request.words_shown,
    )
