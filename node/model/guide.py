"""Guides an answer along a grammar: which tokens may come next. The library llguidance does the work.

A grammar describes the text, not the model: any model can be guided. The mask is computed at home, from the tokens
that were chosen here, so that no peer learns that there is a grammar.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

import llguidance
import numpy as np
import numpy.typing as npt

from node.errors import ModelError, PromptError
from node.model.tokenizer import Tokenizer, raise_unless_failed
from protocol.linear.field import Floats

MAX_GRAMMAR_CHARACTERS = 1 << 18
LIMITS = llguidance.LLParserLimits(
    max_grammar_size=100_000,
    max_lexer_states=50_000,
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    verbose_errors=False,
)
"""At most about 100 MB for a grammar, and 100 ms for a token, by the library's own figures. Errors do not quote text,
because they may be logged."""
WORD_BITS = 32
_FATAL = re.compile(r"-\d{19}")
"""The library (1.9.1) overflows its stack, and ends the process, at a schema with a constant of -2^63 or one more."""


def lark_grammar(source: str) -> str:
    """A grammar in llguidance's form of Lark, or in GBNF, which is llama.cpp's.

    Raises:
        PromptError: it is GBNF, and not valid. The text names the line, and quotes nothing.
    """
    if any(line.lstrip().startswith("root") and "::=" in line for line in source.splitlines()):
        from llguidance.gbnf_to_lark import gbnf_to_lark

        try:
            source = gbnf_to_lark(source)
        except Exception as exc:  # the library raises bare exceptions, and RecursionError
            line = re.search(r"at line \d+", str(exc))
            raise PromptError(f"the grammar is not valid GBNF{f' {line[0]}' if line else ''}") from exc
    return llguidance.LLMatcher.grammar_from_lark(source)


class GuideTokens:
    """The tokens of a model as the library needs them; made once for a model, in about half a second."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos_ids: Collection[int]) -> None:
        """Raises PromptError if the library cannot read the tokenizer."""
        num_tokens = max(vocab_size, tokenizer.vocab_size)
        try:
            self.library = llguidance.LLTokenizer(tokenizer.as_json(), num_tokens, sorted(eos_ids) or None)
        except BaseException as exc:  # the library raises bare exceptions, or panics
            raise_unless_failed(exc)
            raise PromptError(f"this model's tokenizer allows no grammar ({exc}); ask without one") from exc
        self.num_tokens = num_tokens
        self._tokenizer = tokenizer

    def special_ids(self, words: Iterable[str]) -> dict[str, int]:
        """Those of some words that a grammar can name only by their token, with its id: special tokens, and what the
        library takes for one."""
        found = {word: self._tokenizer.id_of(word) for word in words}
        return {
            word: token_id
            for word, token_id in found.items()
            if token_id is not None and self.library.is_special_token(token_id)
        }


class Guide:
    """Where an answer is in its grammar.

    Raises:
        PromptError: the grammar is too long, is not valid, or has something that the library does not support; the
            text names it.
    """

    def __init__(self, tokens: GuideTokens, grammar: str) -> None:
        if len(grammar) > MAX_GRAMMAR_CHARACTERS:
            raise PromptError(f"the grammar has {len(grammar)} characters, {MAX_GRAMMAR_CHARACTERS} at most")
        if _FATAL.search(grammar):
            raise PromptError("the grammar has a number of 19 digits below zero, which is not supported")
        self._tokens = tokens
        self._matcher = llguidance.LLMatcher(tokens.library, grammar, log_level=0, limits=LIMITS)
        self._mask = np.zeros(-(-tokens.num_tokens // WORD_BITS), dtype=np.int32)
        if self._matcher.is_error():
            raise PromptError(_first_reason(self._matcher.get_error()))

    def fresh(self) -> Guide:
        """Another one at the same place, for another answer."""
        copy = Guide.__new__(Guide)
        copy._tokens, copy._matcher, copy._mask = self._tokens, self._matcher.deep_copy(), self._mask.copy()
        return copy

    def mask(self, scores: Floats) -> Floats:
        """A copy of scores f32[V], in which tokens that cannot come next have minus infinity.

        Raises:
            ModelError: the grammar is too complex at this place.
        """
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        self._check()
        allowed: npt.NDArray[np.uint8] = np.unpackbits(self._mask.view(np.uint8), bitorder="little")
        return np.where(allowed[: len(scores)], scores, np.float32(-np.inf))

    def push(self, token_id: int) -> None:
        """A token was chosen. Raises ModelError if it cannot come here."""
        self._matcher.consume_token(token_id)
        self._check()

    @property
    def is_over(self) -> bool:
        """Whether nothing can follow."""
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = _first_reason(self._matcher.get_error())
            raise ModelError(f"the grammar cannot be followed: {reason}; make it simpler")


def _first_reason(error: str) -> str:
    """The library's reason without the place in a grammar that the user did not write."""
    first = error.strip().partition("\n")[0]
    return re.sub(r"^at \d+\(\d+\): (failed to compile JSON schema: )?", "", first)
