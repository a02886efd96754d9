"""Draft models: a smaller model of the same vocabulary guesses what a larger one will say.

Leviathan et al. 2023, «Fast inference from transformers via speculative decoding», arXiv 2211.17192. The draft runs
here and sees the text as it is; nothing of it is lent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from node.errors import KekahydeError, PromptError
from node.model.decoder import Decoder
from node.model.draft import TextDrafter
from node.model.sampling import Sampler
from node.model.tokenizer import TOKENIZER_FILE
from node.store.stored import StoredModel

RIGHT = 0.6
"""Share of a draft model's guesses that is taken to be right: the paper's table 2 has 0.53 to 0.75 for a draft of a
hundredth of the size. It never follows what was right: peers see how many rows a pass has."""

MAX_COMPARED = 64
_SAME: dict[tuple[bytes, bytes], bool] = {}
"""By the SHA-256 of two tokenizers, whether they number alike: to compare large vocabularies takes a tenth of a
second, and every request asks."""


def check_draft(draft: StoredModel, model: StoredModel) -> None:
    """Check that one model can guess for another.

    Raises:
        PromptError: it is not whole, or its tokens are others.
    """
    if not draft.is_whole:
        raise PromptError(f"the weights of the draft model {draft.name} are not all here: pull it without --thin")
    if not _have_same_tokens(draft, model):
        raise PromptError(
            f"the draft model {draft.name} has another vocabulary than {model.name}: name a model of the same family"
        )


def _have_same_tokens(draft: StoredModel, model: StoredModel) -> bool:
    """Whether both give every token the same number. Embeddings may be padded to different sizes."""
    files = draft.manifest.files[TOKENIZER_FILE], model.manifest.files[TOKENIZER_FILE]
    if files not in _SAME:
        if len(_SAME) >= MAX_COMPARED:
            _SAME.clear()
        _SAME[files] = files[0] == files[1] or draft.tokenizer().numbers == model.tokenizer().numbers
    return _SAME[files]


def rows_worth(pass_s: Callable[[int], float], guess_s: float, most: int, right: float = RIGHT) -> int:
    """Rows of a pass for which a token takes least time; 1 if guesses do not pay.

    A pass of w rows, of whose guesses a share `right` is right, gives (1 - right^w) / (1 - right) tokens (the paper's
    equation 1). The draft computes w rows for it.

    Args:
        pass_s: seconds of a pass of so many rows.
        guess_s: seconds of a row in the draft.
        most: rows of a pass, at most.
    """

    def token_s(rows: int) -> float:
        return (pass_s(rows) + rows * guess_s) * (1 - right) / (1 - right**rows)

    best = min(range(2, most + 1), key=token_s)
    return best if token_s(best) < pass_s(1) else 1


class ModelDrafter:
    """Guesses with a draft model, with the random numbers of the answer's next tokens: so a drawn token is guessed
    right as often as a likeliest one.

    Every guess after the first costs one row here, however many of the guesses before were right: the pause before a
    pass, which peers can measure, tells nothing of the text.
    """

    def __init__(self, draft: Decoder, prompt_ids: Sequence[int], ahead: Callable[[], Sampler]) -> None:
        """
        Args:
            draft: computes the draft model.
            ahead: gives what would choose the answer's next tokens; it is used up.
        """
        self._decoder = draft
        self._cache = draft.new_cache()
        self._known = list(prompt_ids)
        self._ahead = ahead
        self._text: TextDrafter | None = None
        """Guesses for the rest of an answer of which the draft can compute no more."""

    def extend(self, token_ids: Sequence[int]) -> None:
        """The text goes on with these tokens."""
        self._known += token_ids
        if self._text is not None:
            self._text.extend(token_ids)

    def guess(self, count: int) -> list[int]:
        """So many tokens that the draft would say."""
        if self._text is None:
            try:
                return self._guess(count)
            except KekahydeError:  # a token that it lacks, the end of its context, or damaged weights
                self._text = TextDrafter(self._known)
        return self._text.guess(count)

    def _guess(self, count: int) -> list[int]:
        cache, sampler = self._cache, self._ahead()
        logits = self._decoder.forward(self._known[cache.reuse(self._known) :], cache)
        guesses: list[int] = []
        for _ in range(count):
            guesses.append(sampler.pick(logits))
            logits = self._decoder.forward(guesses[-1:], cache)  # the last one too: it may be right
        return guesses
