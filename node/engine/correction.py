"""What happens to an answer when a result that it used turns out to be wrong."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from node.engine.running import Running
from node.errors import KekahydeError
from node.model.cache import KVCache
from node.model.decoder import Decoder
from node.model.generate import Answer, GeneratedToken
from node.model.pool import Pool
from node.spans.chain import SpanLieError


class WrongTextError(KekahydeError):
    """Text that was already shown followed from a wrong result."""


class Corrections:
    """Texts of running requests that are wrong from some row on, and are computed again before more is shown."""

    def __init__(self) -> None:
        self._wrong: dict[KVCache, int] = {}

    def add(self, lie: SpanLieError) -> None:
        """Results that were used have turned out to be wrong."""
        for cache, position in lie.wrong.items():
            self._wrong[cache] = min(position, self._wrong.get(cache, position))

    def due(self, running: Sequence[Running]) -> list[Running]:
        """The requests whose texts are wrong."""
        own = [each for each in running if each.cache in self._wrong]
        self._wrong = {each.cache: self._wrong[each.cache] for each in own if each.cache is not None}
        return own

    def correct(self, running: Running, decoder: Decoder) -> None:
        """Compute again what followed from a wrong result, and choose every token of the answer again, with the same
        random numbers. If all are what was shown, the answer goes on as if nothing had happened. After an exception
        of the decoder it can be called again.

        Raises:
            WrongTextError: a token that was shown is another one now.
        """
        assert running.cache is not None, "a text that is wrong has a cache"
        position = self._wrong[running.cache]
        running.cache.truncate(min(position, running.cache.length))
        _computed_again(running, running.cache, decoder)
        if self._wrong.get(running.cache) == position:  # nothing more was found meanwhile
            del self._wrong[running.cache]


def _computed_again(running: Running, cache: KVCache, decoder: Decoder) -> None:
    prompt_ids, shown = running.answer.prompt_ids, running.shown_ids
    if running.pool is not None and running.request.pooling is not None:  # it has the wrong rows in its sum
        cache.truncate(0)
        running.pool = Pool(running.request.pooling)
    if not shown:
        running.pending = prompt_ids[cache.length :]
        return
    cache.truncate(len(prompt_ids) - 1)
    computed = [*prompt_ids, *shown[:-1]]
    if cache.length < len(prompt_ids) - 1:
        decoder.forward(computed[cache.length : len(prompt_ids) - 1], cache)
    logits = decoder.forward(computed[cache.length :], cache, all_logits=True)
    again = _begun_again(running)
    for row, token_id in zip(logits, shown, strict=True):
        token = again.advance(row)[0]
        if not isinstance(token, GeneratedToken) or token.id != token_id:
            raise WrongTextError(
                "a device computed a wrong result, which was found late: the text is wrong from token "
                f"{again.num_tokens} on. That device is not used any more: ask again"
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
