"""One running request: the state of its answer, and the events for its client."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Literal

import numpy as np

from node.engine.ledger import RequestLedger
from node.engine.padding import Padding, padding_after
from node.engine.request import Completed, Event, Failed, GenerationRequest, Listener, Prefilled, Token
from node.engine.speculation import Speculation
from node.model.cache import KVCache
from node.model.decoder import Decoder, Part
from node.model.generate import Answer, Finished, GeneratedToken
from node.model.pool import Pool
from node.planning.cost import Cost
from node.planning.placement import ALL_HERE
from node.session.plan_line import PlanLine
from node.session.receipt import Receipt
from node.session.session import Session
from protocol.linear.field import Floats

log = logging.getLogger(__name__)


class Running:
    """A request from the queue to its receipt; only its runner's thread computes it.

    Raises:
        PromptError: the model cannot compute the prompt.
    """

    def __init__(
        self,
        request: GenerationRequest,
        listener: Listener,
        observer: Callable[[Running, Event], None] = lambda running, event: None,
    ) -> None:
        """`observer` gets every event before `listener`."""
        self.request = request
        self.answer = Answer(
            request.model.config,
            request.model.tokenizer(),
            request.prompt_ids,
            request.params,
            request.continues,
            request.guide,
            request.words_shown,
        )
        self.ledger = RequestLedger()
        self.cache: KVCache | None = None
        self.pending: list[int] = []
        """Tokens that must still be computed before the next one can be chosen."""
        self.pool = None if request.pooling is None else Pool(request.pooling)
        self.speculation: Speculation | None = None
        self.is_seen: Callable[[], bool] = lambda: False
        """Whether peers see its passes, who must not learn its text."""
        self._passes = 0
        """Passes behind the prompt."""
        self._padding: Padding | None = None
        self.cancelled = False
        self.announced = False
        """Whether its client was told that it waits; it does not begin before."""
        self.started = False
        self.prefill_rows = 0
        """Number of prompt rows that must be computed, because no cache has them."""
        self._told_rows = 0
        """Rows of the prompt of which its client has heard."""
        self.cached_tokens = 0
        self.submitted_at = self.started_at = time.perf_counter()
        self.token_times: list[float] = []
        self.shown_ids: list[int] = []
        """The tokens of the answer so far."""
        self.notes: list[str] = []
        self.predicted: Cost | None = None
        self.alone = True
        """Whether no other request ran with it; then its times say something about the session."""
        self._listener = listener
        self._observer = observer
        self._over = threading.Lock()
        self._is_over = False

    def begin(self, cache: KVCache) -> None:
        """Begin with a cache, which may already hold the beginning of the prompt."""
        self.started = True
        self.started_at = time.perf_counter()
        self.cache = cache
        self.cached_tokens = 0 if self.pool is not None else cache.reuse(self.answer.prompt_ids)
        self.pending = self.answer.prompt_ids[self.cached_tokens :]
        self.prefill_rows = len(self.pending)

    @property
    def rows_ahead(self) -> int:
        """Rows of its next pass if it computes guessed tokens too; 0: it does not, as for a prompt, and at the end of
        the context."""
        if self.speculation is None or self.cache is None or len(self.pending) != 1 or not self.answer.num_tokens:
            return 0
        return self.speculation.window if self.speculation.fits(self.cache) else 0

    def compute_ahead(self, decoder: Decoder) -> Floats:
        """Its next pass, with guesses: logits of every row; raises what a pass raises."""
        assert self.speculation is not None and self.cache is not None, "it speculates"
        return self.speculation.compute(decoder, self.cache, self.pending[0])

    def choose_ahead(self, logits: Floats) -> list[GeneratedToken | Finished]:
        """What that pass gives: one token at least, and how the answer ended if it did."""
        assert self.speculation is not None and self.cache is not None, "it speculates"
        self._passes += 1
        if self._padding is not None:
            return self._padded(self._padding, logits)
        return self._held_back(self.speculation.choose(logits, self.cache, self.answer))

    def choose(self, logits: Floats) -> list[GeneratedToken | Finished]:
        """What a pass without guesses gives: a token, and how the answer ended if it did."""
        self._passes += self.answer.num_tokens > 0
        if self._padding is not None:
            return self._padded(self._padding, logits[np.newaxis])
        return self._held_back(self.answer.advance(logits))

    def _held_back(self, events: list[GeneratedToken | Finished]) -> list[GeneratedToken | Finished]:
        """These events, without the answer's end if more passes are to follow."""
        if isinstance(end := events[-1], Finished) and self.is_seen():
            self._padding = padding_after(end, self._passes, self.request.pad_output)
        return events if self._padding is None else events[:-1]

    def _padded(self, padding: Padding, logits: Floats) -> list[GeneratedToken | Finished]:
        """One of these passes was made; its rows are forgotten, after as long a pause as after every other pass."""
        assert self.cache is not None, "a request that runs has its cache"
        self.cache.truncate(self.cache.length - len(logits))
        for row in logits:
            self.answer.spend(row)
        return padding.passed()

    def cut_off(self, reason: Literal["cancelled", "error"]) -> Finished:
        """The end of an answer that is not computed any further."""
        if self._padding is not None:
            return self._padding.finished
        return self.answer.cancelled() if reason == "cancelled" else self.answer.broken_off()

    def part(self, num_rows: int) -> Part:
        """Its next rows, for a pass."""
        assert self.cache is not None, "a request that runs has its cache"
        return Part(self.pending[:num_rows], self.cache, self.pool)

    @property
    def ttft_s(self) -> float | None:
        """Seconds from its arrival to its first token."""
        return self.token_times[0] - self.submitted_at if self.token_times else None

    @property
    def computing_ttft_s(self) -> float:
        """Seconds from its first pass to its first token; 0 if there was none."""
        return self.token_times[0] - self.started_at if self.token_times else 0.0

    @property
    def tokens_per_s(self) -> float:
        """Tokens after the first, over the time from the first to the last."""
        times = self.token_times
        span_s = times[-1] - times[0] if times else 0.0
        return (len(times) - 1) / span_s if span_s > 0 else 0.0

    def tell_progress(self, num_rows: int) -> None:
        """So many rows of its prompt, of those that still have to be computed, have gone through; a pass that is
        computed again says nothing until it is further than before."""
        done = min(self.prefill_rows - len(self.pending) + num_rows, self.prefill_rows)
        if self.answer.num_tokens == 0 and done > self._told_rows:
            self._told_rows = done
            self.tell(Prefilled(done, self.prefill_rows))

    def tell(self, event: Event) -> None:
        """Send an event to observer and listener; their errors are logged and affect nobody else."""
        try:
            self._observer(self, event)
            self._listener(event)
        except Exception:
            log.exception("the listener of request %s failed", self.request.id)

    def emit(self, event: GeneratedToken) -> None:
        """Send one more token."""
        self.token_times.append(time.perf_counter())
        self.pending = [event.id]
        self.shown_ids.append(event.id)
        if self.speculation is not None:
            self.speculation.drafter.extend([event.id])
        self.tell(Token(event.index, event.id, event.text, event.likelihood))

    def fail(self, failure: Failed) -> bool:
        """End without an answer, unless it is whole and only its padding was to come; returns False if it has already
        ended."""
        if self._padding is not None:
            return self.complete(self._padding.finished, None)
        return self._end(failure)

    def teach(self, session: Session | None) -> None:
        """Tell its session how long it took, if that says something about the session."""
        if session is None or self.predicted is None or not self.alone or self.cached_tokens or self.pool is not None:
            return
        guessed = self.speculation is not None and self.speculation.passes > 0  # its passes have other sizes
        token_s = 1 / self.tokens_per_s if self.tokens_per_s and not guessed else 0.0
        session.learn(self.predicted, self.computing_ttft_s, token_s)

    def complete(self, finished: Finished, session: Session | None) -> bool:
        """End with a receipt; returns False if it has already ended.

        Args:
            session: the session in which it ran; None if it never ran.
        """
        return self._end(Completed(self._receipt(finished, session)))

    def _end(self, event: Event) -> bool:
        with self._over:
            if self._is_over:
                return False
            self._is_over = True
        self.tell(event)
        return True

    def _receipt(self, finished: Finished, session: Session | None) -> Receipt:
        ledger, request = self.ledger, self.request
        notes = [note for note in (session.note if session else None, *self.notes) if note]
        return Receipt(
            text=finished.text,
            tokens=finished.num_tokens,
            prompt_tokens=len(request.prompt_ids),
            cached_tokens=self.cached_tokens,
            mode=(session.mode if session else request.privacy).value,
            asked=request.privacy.value,
            model=request.model.name,
            model_id=request.model.model_id,
            peers=ledger.peer_shares(session.peers if session else []),
            chunks=ledger.counts,
            bytes_up=round(ledger.bytes_up),
            bytes_down=round(ledger.bytes_down),
            ttft_s=self.ttft_s or 0.0,
            tokens_per_s=self.tokens_per_s,
            finish_reason=finished.reason,
            pads_made=round(ledger.pads_made),
            pads_paired=round(ledger.pads_paired),
            pad_s=session.pad_s if session else 0.0,
            timings_s=dict(ledger.seconds),
            placement=(session.plan.shown if session else ALL_HERE).as_json(),
            weights_here_bytes=session.weights_here_bytes if session else request.model.held_bytes,
            checks_bytes=session.checks_bytes if session else 0,
            plan=PlanLine.of(session.plan, self.predicted) if session else None,
            note="; ".join(notes) or None,
            spans=session.look_at_spans() if session else [],
            rechecked=session.rechecked if session else None,
            speculation=None if self.speculation is None else self.speculation.outcome,
        )
