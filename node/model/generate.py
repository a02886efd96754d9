"""The loop from a prompt to a finished text, one token at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from node.errors import PromptError
from node.model.cache import KVCache
from node.model.decoder import Decoder
from node.model.sampling import Sampler, SamplingParams
from node.model.stops import StopMatcher
from node.model.tokenizer import Tokenizer

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class GeneratedToken:
    """One more token, with the text that became certain by it; a final end-of-sequence token is one too."""

    index: int
    """0 for the first token of the answer."""
    id: int
    text: str
    """Empty while a character is incomplete, or while it may be the beginning of a stop string."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a generation."""

    reason: FinishReason
    """stop: the model ended, or a stop string came; length: a limit was reached; cancelled: nobody wants the rest."""
    text: str
    """The whole text: that of all tokens, joined."""
    num_tokens: int


def check_prompt(prompt_ids: Sequence[int], context_length: int) -> None:
    """Raises PromptError for a prompt that is empty or leaves no room for an answer."""
    if not prompt_ids:
        raise PromptError("the prompt is empty; type something to go on from")
    if len(prompt_ids) >= context_length:
        raise PromptError(
            f"the prompt has {len(prompt_ids)} tokens, the model's context is {context_length} with the answer; "
            "shorten the prompt or take a model with a longer context"
        )


def generate(
    decoder: Decoder,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int],
    params: SamplingParams,
    cancelled: Callable[[], bool] | None = None,
    cache: KVCache | None = None,
    continues: bool = True,
) -> Iterator[GeneratedToken | Finished]:
    """Tokens of an answer as they are computed, then one `Finished`.

    Args:
        cancelled: asked before every token; True ends the answer.
        cache: of an earlier answer: what its beginning shares with the prompt is not computed again.
        continues: the text goes on from the prompt's, with the space between; else it starts afresh, as the answer
            in a chat does.

    Raises:
        PromptError: the prompt is empty, or too long for the context; before anything is computed.
    """
    check_prompt(prompt_ids, decoder.config.context_length)
    answer = _Answer(decoder, tokenizer, prompt_ids, params, continues)
    cache = decoder.new_cache() if cache is None else cache
    return answer.events(cache, cancelled or (lambda: False))


class _Answer:
    """One generation: the parts that turn logits into text, and where they stand."""

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        continues: bool,
    ) -> None:
        self._decoder = decoder
        self._prompt_ids = list(prompt_ids)
        self._sampler = Sampler(params, prompt_ids)
        self._stream = tokenizer.stream(prompt_ids if continues else ())
        self._stops = StopMatcher(params.stop)
        self._end_ids = frozenset() if params.ignore_eos else frozenset(decoder.config.eos_ids)
        room = decoder.config.context_length - len(prompt_ids)
        self._max_tokens = min(params.max_tokens, room)
        self._text: list[str] = []

    def events(self, cache: KVCache, cancelled: Callable[[], bool]) -> Iterator[GeneratedToken | Finished]:
        pending = self._prompt_ids[cache.reuse(self._prompt_ids) :]
        for index in range(self._max_tokens):
            if cancelled():
                yield self._finished("cancelled", index)
                return
            token_id = self._sampler.pick(self._decoder.forward(pending, cache))
            ends = token_id in self._end_ids
            text = self._shown(token_id, ends or index + 1 == self._max_tokens)
            yield GeneratedToken(index, token_id, text)
            if ends or self._stops.stopped:
                yield self._finished("stop", index + 1)
                return
            pending = [token_id]
        yield self._finished("length", self._max_tokens)

    def _shown(self, token_id: int, is_last: bool) -> str:
        """The text that a token makes certain; with the last token, all that was held back."""
        text = self._stops.push(self._stream.push(token_id))
        if is_last:
            text += self._stops.push(self._stream.finish())
            text += self._stops.finish()
        self._text.append(text)
        return text

    def _finished(self, reason: FinishReason, num_tokens: int) -> Finished:
        return Finished(reason, "".join(self._text), num_tokens)
