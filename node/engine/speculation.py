"""Speculation: a pass of one stream computes guessed tokens too, and what was guessed right needs no pass of its own.

Every token is chosen from its own logits with its own random number, in order, as without guesses; the first guess
that differs from the chosen token ends the use of the pass. So the text is the same whatever was guessed. The number
of rows does not follow how many guesses were right, which peers must not see: it is the same in every pass in which
the stream is alone, up to the end of the model's context.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct, field

from node.engine.drafts import ModelDrafter, rows_worth
from node.engine.request import GenerationRequest
from node.model.cache import KVCache
from node.model.decoder import Decoder
from node.model.draft import MAX_WINDOW, TextDrafter
from node.model.generate import Answer, Finished, GeneratedToken
from node.privacy import Privacy
from node.session.receipt import Speculated
from node.session.session import Session
from node.store.stored import StoredModel
from protocol.linear.field import Floats

FAR_S = 0.005
"""Round trip to the nearest peer, at least: below it, messages and Python cost most, and a prediction of passes that
were never made is not good enough to bet on."""
WORTH = 1.05
"""A pass with guesses may take so many times a pass without: then it is hardly slower even if no guess is right."""


class Drafter(Protocol):
    """Guesses tokens; it may be wrong always."""

    def extend(self, token_ids: list[int]) -> None: ...

    def guess(self, count: int) -> list[int]: ...


class Speculation(Struct):
    """The guesses of one answer."""

    window: int
    """Rows of every pass: the last token and guesses."""
    drafter: Drafter
    draft: str = ""
    """Name of the model that guesses; empty: the text itself."""
    passes: int = 0
    right: int = 0
    """Guesses that needed no pass of their own."""
    _guesses: list[int] = field(default_factory=list)

    def compute(self, decoder: Decoder, cache: KVCache, last: int) -> Floats:
        """One pass; logits f32[window, V]. The cache then holds the guesses too, until `choose`; after an exception
        it is what it was.

        Args:
            last: the newest token, which no pass has computed yet; the drafter has heard of it.
        """
        self._guesses, before = self.drafter.guess(self.window - 1), cache.length
        try:
            return decoder.forward([last, *self._guesses], cache, all_logits=True)
        except BaseException:
            cache.truncate(before)
            raise

    def choose(self, logits: Floats, cache: KVCache, answer: Answer) -> list[GeneratedToken | Finished]:
        """The tokens that a pass gives, one at least, and how the answer ended if it did. The cache then holds what
        was computed of the text, and nothing else. It takes as long whatever was guessed right."""
        before = cache.length - self.window
        events: list[GeneratedToken | Finished] = []
        used = 0
        try:
            for row, guess in zip(logits, [*self._guesses, None], strict=True):
                token, *end = answer.advance(row)
                events += [token, *end]
                used += 1
                if end or (isinstance(token, GeneratedToken) and token.id != guess):
                    break
        finally:
            cache.truncate(before + max(used, 1))
        for row in logits[used:]:
            answer.spend(row)
        self.passes += 1
        self.right += used - 1
        return events

    @property
    def outcome(self) -> Speculated:
        """For the receipt."""
        return Speculated(self.window, self.passes, self.right, self.draft)

    def fits(self, cache: KVCache) -> bool:
        """Whether a pass has room before the end of the model's context."""
        return cache.length + self.window <= cache.capacity


class Asking(Protocol):
    """A request that begins, and its answer."""

    answer: Answer
    request: GenerationRequest


def speculation_for(session: Session, asking: Asking) -> Speculation | None:
    """How an answer speculates; None: it does not.

    If the request does not say, the text is looked up where a pass with guesses takes hardly longer by prediction,
    which is so where round trips cost most; a draft model guesses where a token is then predicted to take less time.
    The prompt has no say in it: peers see how many rows a pass has.
    """
    asked, draft, answer = asking.request.speculate, asking.request.draft, asking.answer
    if draft is not None:
        window = _rows_with(draft, session) if asked is None else asked
        if window < 2:
            return None
        drafter = ModelDrafter(session.decoder_here(draft), answer.prompt_ids, answer.ahead)
        return Speculation(window, drafter, draft.name)
    window = MAX_WINDOW if asked is None else asked
    if window < 2 or (asked is None and not _is_worth_it(session, window)):
        return None
    return Speculation(window, TextDrafter(answer.prompt_ids))


def _rows_with(draft: StoredModel, session: Session) -> int:
    """Rows of a pass for which a token is predicted to take least time; 1: no guesses."""
    alone_s = session.predict(session.plan, 1).token_s
    return rows_worth(
        lambda rows: alone_s if rows == 1 else session.predict(session.plan, rows).ttft_s,
        session.seconds_here(draft),
        MAX_WINDOW,
    )


def _is_worth_it(session: Session, window: int) -> bool:
    pings = [peer.measures.ping_s or 0.0 for peer in session.peers]
    if session.mode is Privacy.LOCAL or session.plan.cost is None or min(pings, default=0.0) < FAR_S:
        return False
    cost = session.predict(session.plan, window)
    return cost.ttft_s <= WORTH * cost.token_s
