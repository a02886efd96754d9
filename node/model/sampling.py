"""Chooses the next token from logits, in the order and with the formulas of
`transformers/generation/logits_process.py`.

The order: bias, repetition penalty, OpenAI's frequency and presence penalties, grammar, temperature, top-k, top-p,
min-p, then one draw. A seed gives the same tokens for the same logits on every machine: the draws are the raw output
of a Philox generator, whose bits numpy guarantees.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from node.errors import ModelError, PromptError
from node.model.config import MAX_VOCABULARY
from protocol.linear.field import Floats

if TYPE_CHECKING:
    from node.model.guide import Guide  # its library takes a tenth of a second to load

F64 = npt.NDArray[np.float64]

NUCLEUS_TOKENS = 512
"""The nucleus is first searched among so many of the likeliest tokens."""
MAX_STOP_STRINGS = 16
MAX_STOP_CHARACTERS = 1024
MAX_STOP_TOKENS = 256
MAX_TOKENS = 1 << 31
MAX_SEED = (1 << 64) - 1
MAX_BIASED_TOKENS = 1024
MAX_LOGPROBS = 20


class SamplingParams(Struct, frozen=True):
    """How tokens are chosen and when to end.

    Raises:
        PromptError: a value is out of range; the text names it and its range.
    """

    temperature: float = 0.0
    """0 takes the likeliest token (of equals, the one with the lowest id); higher values give more varied text."""
    top_k: int = 0
    """Only the k likeliest tokens; 0 for all."""
    top_p: float = 1.0
    """Only the fewest likeliest tokens that hold this share of the probability; 1 for all."""
    min_p: float = 0.0
    """Only tokens at least this many times as likely as the likeliest; 0 for all."""
    repetition_penalty: float = 1.0
    """Divides the logits of tokens that already occurred (multiplies negative ones); 1 for no penalty."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit for each time that it occurs in the answer so far; 0 for no penalty."""
    presence_penalty: float = 0.0
    """Subtracted once from the logits of tokens that occur in the answer so far; 0 for no penalty."""
    seed: int | None = None
    """None draws one from the operating system."""
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    """Texts that end the answer and are not part of it; they may contain words of special tokens."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end the answer, as an end-of-sequence token does; if such a token has a text, it is part of the
    answer."""
    ignore_eos: bool = False
    """Whether to continue after an end-of-sequence token."""
    min_tokens: int = 0
    """Tokens before which no end-of-sequence or stop token is chosen; stop texts end the answer all the same."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Tokens with what is added to their logits before anything else."""
    logprobs: int | None = None
    """With each token its logarithmic probability, and so many of the likeliest tokens with theirs; None for nothing.
    They are of the model's own logits, before penalties, bias and temperature."""

    def __post_init__(self) -> None:
        _check_number("temperature", self.temperature, 0, 100)
        _check_integer("top_k", self.top_k, 0, 1 << 31)
        _check_number("top_p", self.top_p, 0, 1)
        _check_number("min_p", self.min_p, 0, 1)
        _check_number("repetition_penalty", self.repetition_penalty, 0.01, 100)
        _check_number("frequency_penalty", self.frequency_penalty, -2, 2)
        _check_number("presence_penalty", self.presence_penalty, -2, 2)
        _check_integer("max_tokens", self.max_tokens, 1, MAX_TOKENS)
        if self.seed is not None:
            _check_integer("seed", self.seed, 0, MAX_SEED)
        if not isinstance(self.stop, tuple) or not all(isinstance(text, str) and text for text in self.stop):
            raise PromptError("stop must be texts that are not empty; leave it out to stop at the model's own end")
        if len(self.stop) > MAX_STOP_STRINGS or any(len(text) > MAX_STOP_CHARACTERS for text in self.stop):
            raise PromptError(f"stop takes {MAX_STOP_STRINGS} texts of {MAX_STOP_CHARACTERS} characters; give fewer")
        if not isinstance(self.stop_token_ids, tuple) or len(self.stop_token_ids) > MAX_STOP_TOKENS:
            raise PromptError(f"stop_token_ids takes {MAX_STOP_TOKENS} token ids at most; give fewer")
        for token_id in self.stop_token_ids:
            _check_integer("stop_token_ids", token_id, 0, MAX_VOCABULARY - 1)
        _check_integer("min_tokens", self.min_tokens, 0, self.max_tokens)
        if len(self.logit_bias) > MAX_BIASED_TOKENS:
            raise PromptError(f"logit_bias takes {MAX_BIASED_TOKENS} tokens at most; give fewer")
        for token_id, bias in self.logit_bias:
            _check_integer("logit_bias", token_id, 0, MAX_VOCABULARY - 1)
            _check_number("logit_bias", bias, -100, 100)
        if self.logprobs is not None:
            _check_integer("logprobs", self.logprobs, 0, MAX_LOGPROBS)

    @classmethod
    def from_generation_config(cls, generation: Mapping[str, Any], **overrides: Any) -> SamplingParams:
        """The defaults of a model's `generation_config.json`; overrides that are None do not count.

        As in transformers, nothing is drawn (temperature 0) unless `do_sample` is set. An invalid default is ignored,
        because it is not the user's mistake.
        """
        params = cls()
        names = ("top_k", "top_p", "min_p", "repetition_penalty")
        wanted = {name: generation.get(name) for name in names}
        wanted["max_tokens"] = generation.get("max_new_tokens")
        wanted["temperature"] = (generation.get("temperature") or 1.0) if generation.get("do_sample") else 0.0
        for name, value in wanted.items():
            if value is not None:
                params = _replaced(params, name, value)
        given = {name: value for name, value in overrides.items() if value is not None}
        unknown = given.keys() - set(cls.__struct_fields__)
        if unknown:
            raise PromptError(f"{min(unknown)} is not a sampling parameter; leave it out")
        return replace(params, **given)


class Likelihood(Struct, frozen=True):
    """How likely a token was."""

    logprob: float
    """Natural logarithm of its probability."""
    top: tuple[tuple[int, float], ...]
    """The likeliest tokens and the logarithms of their probabilities, the likeliest first."""


class Sampler:
    """Chooses the tokens of one answer; it keeps the random stream and the tokens that occurred.

    Args:
        end_ids: tokens that end the answer.
        guide: the grammar that the answer follows; it is advanced with every token.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt_ids: Sequence[int],
        end_ids: Collection[int] = (),
        guide: Guide | None = None,
    ) -> None:
        self._params = params
        self._guide = guide
        self._end_ids = np.fromiter(end_ids, dtype=np.int64)
        self._num_tokens = 0
        self._seen = set(prompt_ids)
        self._answered: Counter[int] = Counter()
        self.seed = secrets.randbits(63) if params.seed is None else params.seed
        """The seed in use, even if none was given."""
        self._random = np.random.Philox(key=self.seed)

    def pick(self, logits: Floats) -> int:
        """The next token for logits f32[V].

        Raises:
            ModelError: the logits are not numbers.
        """
        token_id = self._pick(self._allowed(self._penalized(self._biased(logits))))
        self._seen.add(token_id)
        self._answered[token_id] += 1
        self._num_tokens += 1
        if self._guide is not None:
            self._guide.push(token_id)
        return token_id

    def ahead(self) -> Sampler:
        """A twin that chooses the next tokens with the same random numbers, from whatever logits, and follows no
        grammar. What it does changes nothing here."""
        twin = copy(self)
        twin._guide = None
        twin._seen, twin._answered = set(self._seen), Counter(self._answered)
        twin._random = np.random.Philox(key=self.seed)
        twin._random.state = self._random.state
        return twin

    def spend(self, logits: Floats) -> None:
        """Takes as long as a choice, changes nothing here and never fails: for rows of which nothing is chosen,
        because peers measure the pause before the next pass."""
        before = self._random.state
        try:
            self.likelihood(logits, self._pick(self._allowed(self._penalized(self._biased(logits)))))
        except ModelError:  # behind its end, a grammar may allow no token
            pass
        finally:
            self._random.state = before

    def likelihood(self, logits: Floats, token_id: int) -> Likelihood | None:
        """How likely a token was among logits f32[V]; None unless `logprobs` asks for it."""
        wanted = self._params.logprobs
        if wanted is None:
            return None
        largest = logits.max()
        exact: F64 = (logits - largest).astype(np.float64)
        logprobs = exact - np.log(np.exp(exact).sum())
        top = logprobs.argpartition(len(logprobs) - wanted)[len(logprobs) - wanted :] if wanted else ()
        ranked = sorted((-float(logprobs[i]), int(i)) for i in top)
        return Likelihood(float(logprobs[token_id]), tuple((i, -negative) for negative, i in ranked))

    def _pick(self, scores: Floats) -> int:
        best = int(scores.argmax())
        if not np.isfinite(scores[best]):
            raise ModelError("the model's logits are not finite numbers; its weights are damaged, import it again")
        if self._params.temperature == 0:
            return best
        candidates, probabilities = _candidates(scores, self._params)
        cumulative = probabilities.cumsum()
        point = self._uniform() * cumulative[-1]
        chosen = int(np.searchsorted(cumulative, point, side="right"))
        return int(candidates[min(chosen, len(candidates) - 1)])

    def _biased(self, logits: Floats) -> Floats:
        """Raises PromptError for a token that the model does not have."""
        bias = self._params.logit_bias
        if not bias:
            return logits
        ids = np.array([token_id for token_id, _ in bias])
        if ids.max() >= len(logits):
            raise PromptError(f"logit_bias names token {ids.max()}; the model has only 0..{len(logits) - 1}")
        scores = logits.copy()
        scores[ids] += np.array([value for _, value in bias], dtype=np.float32)
        return scores

    def _allowed(self, scores: Floats) -> Floats:
        """Minus infinity for tokens that cannot come next: by the grammar, or because it is too early for an end."""
        if self._guide is not None:
            scores = self._guide.mask(scores)
        if self._num_tokens < self._params.min_tokens and len(self._end_ids):
            later = scores.copy()
            later[self._end_ids] = -np.inf
            if np.isfinite(later.max()):  # else the grammar allows only an end
                return later
        return scores

    def _penalized(self, logits: Floats) -> Floats:
        params = self._params
        scores = logits
        if params.repetition_penalty != 1:
            seen = np.fromiter(self._seen, dtype=np.int64, count=len(self._seen))
            scores = logits.copy()
            scaled = scores[seen]
            scores[seen] = np.where(
                scaled < 0, scaled * params.repetition_penalty, scaled / params.repetition_penalty
            )
        if (params.frequency_penalty or params.presence_penalty) and self._answered:
            ids = np.fromiter(self._answered, dtype=np.int64, count=len(self._answered))
            times = np.fromiter(self._answered.values(), dtype=np.float32, count=len(self._answered))
            scores = scores.copy()
            scores[ids] -= np.float32(params.frequency_penalty) * times + np.float32(params.presence_penalty)
        return scores

    def _uniform(self) -> float:
        """A number in [0, 1) of 53 bits."""
        return (int(self._random.random_raw()) >> 11) * 2.0**-53


def _candidates(scores: Floats, params: SamplingParams) -> tuple[npt.NDArray[np.int64], F64]:
    """The tokens that may be drawn, in the order of their ids, with their relative probabilities."""
    ids: npt.NDArray[np.int64] = np.arange(len(scores))
    if 0 < params.top_k < len(scores):  # before the temperature, which keeps the order: fewer numbers to scale
        keep = scores >= np.partition(scores, len(scores) - params.top_k)[len(scores) - params.top_k]
        ids, scores = ids[keep], scores[keep]
    # Subtract the maximum first, so that a small temperature never gives infinity minus infinity.
    weights: F64 = (scores - scores.max()).astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        weights /= params.temperature
        np.exp(weights, out=weights)
    if params.top_p < 1:
        kept = _nucleus(weights, params.top_p)
        ids, weights = ids[kept], weights[kept]
    if params.min_p > 0:
        keep = weights >= params.min_p * weights.max()
        ids, weights = ids[keep], weights[keep]
    return ids, weights


def _nucleus(weights: F64, top_p: float) -> npt.NDArray[np.int64]:
    """Top-p: drops the least likely tokens whose sum is at most 1 - p; at least one token stays.

    Returns the indices of the others, ascending.
    """
    allowance = (1 - top_p) * weights.sum()
    largest: npt.NDArray[np.int64] = np.arange(len(weights))
    dropped = 0.0
    if len(weights) > 2 * NUCLEUS_TOKENS:  # sorting a whole vocabulary for each token would take too long
        order = weights.argpartition(len(weights) - NUCLEUS_TOKENS)
        rest = weights[order[:-NUCLEUS_TOKENS]].sum()
        if rest <= allowance:
            largest, dropped = np.sort(order[-NUCLEUS_TOKENS:]), float(rest)
    order = largest[weights[largest].argsort(kind="stable")]
    num_dropped = int(np.searchsorted(weights[order].cumsum() + dropped, allowance, side="right"))
    kept: npt.NDArray[np.int64] = np.sort(order[min(num_dropped, len(order) - 1) :])
    return kept


def _replaced(params: SamplingParams, name: str, value: Any) -> SamplingParams:
    """`params` with another value; unchanged if the value is not legal."""
    try:
        return replace(params, **{name: value})
    except PromptError:
        return params


def _check_number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise PromptError(f"{name} is {value!r}; give a number from {low} to {high}")


def _check_integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise PromptError(f"{name} is {value!r}; give a whole number from {low} to {high}")
