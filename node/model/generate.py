"""Turns logits into tokens and text, until an answer is finished."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from node.errors import PromptError, PromptTooLongError
from node.model.config import ModelConfig
from node.model.sampling import Likelihood, Sampler, SamplingParams
from node.model.stops import StopMatcher
from node.model.tokenizer import Tokenizer
from protocol.linear.field import Floats

if TYPE_CHECKING:
    from node.model.guide import Guide

FinishReason = Literal["stop", "length", "cancelled", "error"]


class GeneratedToken(Struct, frozen=True):
    """One more token, with the text that it made certain; a final end-of-sequence token counts too."""

    index: int
    """0 for the first token of the answer."""
    id: int
    text: str
    """Empty while a character is incomplete, or while it may be the beginning of a stop string."""
    likelihood: Likelihood | None = None
    """Only if it was asked for."""


class Finished(Struct, frozen=True):
    """The last event of a generation."""

    reason: FinishReason
    """stop: the model's end, a stop string or a stop token; length: a limit; cancelled: the request was cancelled;
    error: the rest could not be computed."""
    text: str
    """The whole text of all tokens."""
    num_tokens: int


def check_prompt(prompt_ids: Sequence[int], config: ModelConfig, tokenizer: Tokenizer) -> None:
    """Checks that a model can compute a prompt, before it joins a pass with other requests.

    Raises:
        PromptError: it is empty, leaves no room for an answer, or holds a token that the model does not have.
    """
    if not prompt_ids:
        raise PromptError("the prompt is empty; type something to continue")
    if len(prompt_ids) >= config.context_length:
        raise PromptTooLongError(
            # Claude Code looks for these words, to make its conversation shorter.
            f"the prompt is too long: {len(prompt_ids)} tokens > {config.context_length}, the model's context with "
            "the answer; shorten the prompt or use a model with a longer context"
        )
    if min(prompt_ids) >= 0 and max(prompt_ids) < config.vocab_size:
        return
    lacking = next(token_id for token_id in prompt_ids if not 0 <= token_id < config.vocab_size)
    word = tokenizer.word(lacking)  # a tokenizer may know more tokens than the embedding has rows
    named = f"token {lacking}" if word is None else f"{word!r}, which is token {lacking}"
    raise PromptError(f"the prompt holds {named}; the model has only 0..{config.vocab_size - 1}: leave it out")


class Answer:
    """One generation without the model itself: the parts that turn logits into text, and their state.

    Raises:
        PromptError: the model cannot compute the prompt.
    """

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        continues: bool,
        guide: Guide | None = None,
        words_shown: Collection[str] = (),
    ) -> None:
        """
        Args:
            guide: the grammar that the answer follows; several answers may have one.
            words_shown: words of special tokens that are part of the text all the same.
        """
        check_prompt(prompt_ids, config, tokenizer)
        self.prompt_ids = list(prompt_ids)
        self.num_tokens = 0
        named = () if params.ignore_eos else tokenizer.end_ids(config)
        self._end_ids = frozenset((*params.stop_token_ids, *named))
        self._guide = None if guide is None else guide.fresh()
        self._sampler = Sampler(params, prompt_ids, self._end_ids, self._guide)
        self._stream = tokenizer.stream(prompt_ids if continues else ())
        self._words = tokenizer.special_words
        self._stops = StopMatcher(params.stop, self._words.values())
        self._words_shown = frozenset(words_shown)
        room = config.context_length - len(prompt_ids)
        self._max_tokens = min(params.max_tokens, room)
        self._text: list[str] = []

    @property
    def seed(self) -> int:
        """Where its random numbers begin, whether it was given or drawn."""
        return self._sampler.seed

    def ahead(self) -> Sampler:
        """What would choose the next tokens, for who guesses them."""
        return self._sampler.ahead()

    def spend(self, logits: Floats) -> None:
        """Takes about as long as `advance` and chooses nothing."""
        self._sampler.spend(logits)

    def advance(self, logits: Floats) -> list[GeneratedToken | Finished]:
        """The next token, chosen from the last logits; after the answer's last token, also how it ended."""
        token_id, index = self._sampler.pick(logits), self.num_tokens
        self.num_tokens += 1
        ends = token_id in self._end_ids or (self._guide is not None and self._guide.is_over)
        is_last = self.num_tokens == self._max_tokens
        likelihood = self._sampler.likelihood(logits, token_id)
        token = GeneratedToken(index, token_id, self._shown(token_id, ends or is_last), likelihood)
        if ends or self._stops.stopped:
            return [token, self._finished("stop")]
        return [token, self._finished("length")] if is_last else [token]

    def cancelled(self) -> Finished:
        """The end of an answer whose request was cancelled."""
        return self._finished("cancelled")

    def broken_off(self) -> Finished:
        """The end of an answer whose next token cannot be computed; the text so far is correct."""
        return self._finished("error")

    def _shown(self, token_id: int, is_last: bool) -> str:
        """The text that a token makes certain; with the last token, all that was held back."""
        text = self._stops.push(self._stream.push(token_id))
        word = self._words.get(token_id)
        if word in self._words_shown:
            text += self._stops.push(self._stream.finish() + word)
        elif word is not None:
            text += self._stops.push_word(word)
        if is_last:
            text += self._stops.push(self._stream.finish())
            text += self._stops.finish()
        self._text.append(text)
        return text

    def _finished(self, reason: FinishReason) -> Finished:
        return Finished(reason, "".join(self._text), self.num_tokens)
