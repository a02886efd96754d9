"""`SessionRunner`: the thread of one model in one privacy mode. It owns the session and computes the passes."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from node.engine.batch import PassPacer, compose, spread
from node.engine.beginning import begin
from node.engine.caches import KeptCaches
from node.engine.chunks import ChunkFeed
from node.engine.correction import Corrections, WrongTextError
from node.engine.recorder import PassRecorder
from node.engine.request import Embedded, Failed, Note, Queued
from node.engine.running import Running
from node.engine.siblings import must_wait
from node.engine.watch import Fingerprint, OpenSession, PeerWatch, still_fits
from node.errors import KekahydeError, UnitUnavailableError
from node.execution.interrupt import Interrupt, PassCancelledError
from node.model.decoder import PartError
from node.model.generate import Finished, GeneratedToken
from node.process.memory import give_back
from node.session.session import Session
from node.spans.chain import SpanLieError

log = logging.getLogger(__name__)

MAX_RUNNING = 16
"""Most requests that one runner computes at the same time; the others wait. Each has its own cache."""
IDLE_LIMIT_S = 300.0
"""A runner without requests closes its session after this time."""
REST_AFTER_S = 2.0
"""A runner that was idle for so long returns free memory to the system."""
ATTEND_S = 0.1
"""It reads what the peers of an idle session have sent at least this often."""


class SessionRunner:
    """Computes requests of one model and one privacy mode together, first come, first served."""

    def __init__(
        self,
        name: str,
        open_session: OpenSession,
        fingerprint: Fingerprint,
        feed: ChunkFeed,
        sends_all_rows: bool = False,
    ) -> None:
        """
        Args:
            open_session: forms the session for a first request; called in the runner's thread.
            fingerprint: of the peers with which a session could be formed; another one means a new session.
            sends_all_rows: never reuse the beginning of an earlier prompt if rows are shown to others.
        """
        self._open_session = open_session
        self._fingerprint = fingerprint
        self._news = threading.Condition()
        self._waiting: deque[Running] = deque()
        self._running: list[Running] = []
        self._in_pass: list[tuple[Running, int]] = []
        """The requests with rows in the current pass, and how many rows."""
        self._closing = False
        self._attending = False
        """Whether the thread waits for messages of peers as well as for requests."""
        self.ended = False
        """Whether it takes no more requests."""
        self._interrupt = Interrupt()
        self._session: Session | None = None
        self._formed_with: object = None
        self._watch = PeerWatch()
        self._pacer = PassPacer()
        self._caches = KeptCaches()
        self._corrections = Corrections()
        self._sends_all_rows = sends_all_rows
        self._recorder = PassRecorder(feed)
        self._thread = threading.Thread(target=self._main, name=f"runner {name}", daemon=True)
        self._thread.start()

    # --- from any thread

    def submit(self, running: Running) -> int | None:
        """Queue a request until it is announced; returns its place, or None if this runner has just ended."""
        with self._news:
            if self.ended or self._closing:
                return None
            self._waiting.append(running)
            return len(self._waiting) - 1 + len(self._running)

    def announce(self, running: Running, position: int) -> None:
        """Tell the client that it is queued, then let it begin. No lock is held, because the client may call the
        engine."""
        running.tell(Queued(position))
        with self._news:
            running.announced = True
            self._wake()

    def cancel(self, running: Running) -> None:
        """Cancel a request. A pass with only this request, or with its prompt, ends at once."""
        with self._news:
            running.cancelled = True
            rows = next((rows for other, rows in self._in_pass if other is running), 0)
            if rows > 1 or (rows and all(other.cancelled for other, _rows in self._in_pass)):
                self._interrupt.request()
            waited = running in self._waiting
            if waited:
                self._waiting.remove(running)
            self._wake()
        if waited:  # outside the lock, because the listener may call the engine
            self._complete(running, running.cut_off("cancelled"))

    def requests(self) -> list[Running]:
        """The running and the waiting requests."""
        with self._news:
            return [*self._running, *self._waiting]

    @property
    def cached_tokens(self) -> int:
        """Number of tokens in caches."""
        with self._news:
            running = sum(each.cache.length for each in self._running if each.cache is not None)
        return running + self._caches.num_tokens

    @property
    def session(self) -> Session | None:
        """The session, if there is one; other threads read only its mode and spans."""
        return self._session

    def close(self) -> None:
        """End every request, and the thread as soon as it can."""
        with self._news:
            self._closing = True
            if not self.ended:
                self._interrupt.request()
            self._wake()

    def join(self) -> None:
        """Wait for the end of the thread."""
        self._thread.join()

    def _main(self) -> None:
        try:
            while self._wait_for_work():
                self._turn()
        finally:
            with self._news:
                self.ended = True
                left = [*self._running, *self._waiting]
                self._running.clear()
                self._waiting.clear()
            for running in left:
                running.fail(Failed("the node is stopping", "stopping"))
            self._close_session()
            self._interrupt.close()

    def _wake(self) -> None:
        """Wake the thread, whatever it waits for; the lock must be held."""
        self._news.notify()
        if self._attending:
            self._interrupt.nudge()

    def _wait_for_work(self) -> bool:
        """Wait until there is something to do; returns False when it is time to end."""
        began, rested = time.monotonic(), False
        while True:
            with self._news:
                self._attending = self._session is not None and self._session.has_peers
                if not self._attending:
                    pause_s = IDLE_LIMIT_S if rested else REST_AFTER_S
                    self._news.wait_for(self._is_wanted, began + pause_s - time.monotonic())
                wanted = self._is_wanted()
                if wanted or time.monotonic() >= began + IDLE_LIMIT_S:
                    self._attending = False
                    self._interrupt.clear()
                    self.ended = self.ended or not wanted
                    return wanted and not self._closing
            if self._attending:
                self._attend()
            if not rested and time.monotonic() >= began + REST_AFTER_S:
                give_back()
                rested = True

    def _attend(self) -> None:
        """Read what peers send between requests; otherwise they could make this node store it."""
        assert self._session is not None, "only a session has peers"
        try:
            self._session.attend(ATTEND_S)
        except Exception as exc:  # the next request forms another session
            log.warning("closing an idle session: %s", exc, exc_info=not isinstance(exc, KekahydeError))
            self._close_session()

    def _is_wanted(self) -> bool:
        return bool((self._waiting and self._waiting[0].announced) or self._running or self._closing)

    def _turn(self) -> None:
        try:
            self._admit()
            if wrong := self._corrections.due(self._running):
                self._correct(wrong[0])
            elif self._running:
                self._pass()
        except PassCancelledError:
            pass
        except UnitUnavailableError as exc:
            self._end_unfinished(str(exc))
        except SpanLieError as lie:
            self._caches.clear()
            self._corrections.add(lie)
        except Exception as exc:
            self._fail_all(Failed.of("a pass", exc))
        finally:
            with self._news:
                self._in_pass = []
                self._interrupt.clear()
        self._drop_cancelled()

    def _admit(self) -> None:
        """Start waiting requests while there is room."""
        while True:
            with self._news:
                if not self._waiting or len(self._running) >= MAX_RUNNING:
                    return
                first = self._waiting[0]
                if not first.announced or must_wait(first, self._running):
                    return
            session = self._fresh_session(first)  # may take seconds, so the lock is not held
            with self._news:
                if not self._waiting:
                    return
                running = self._waiting.popleft()
                self._running.append(running)
            with self._blaming(running):
                begin(running, session, self._caches, self._running, self._sends_all_rows)

    def _fresh_session(self, first: Running) -> Session:
        """The session. If nothing runs, and the peers or the best plan have changed, a new one is formed."""
        if self._session is not None and not self._running and not self._still_good(self._session, first):
            self._close_session()
        if self._session is None:
            self._formed_with = self._fingerprint()
            self._watch = PeerWatch()
            self._session = self._open_session(first, self._recorder.on_change, self._interrupt)
            self._recorder.follow(self._session)
            self._session.on_note = self._note
            first.ledger.pads_made += self._session.pads_made  # before the clock started
            self._watch.news(self._session.peers)
        return self._session

    def _still_good(self, session: Session, first: Running) -> bool:
        return self._fingerprint() == self._formed_with and still_fits(session, first.request)

    def _close_session(self) -> None:
        if self._session is not None:
            self._session.__exit__()
            self._session = None
        self._caches.clear()

    def _pass(self) -> None:
        session = self._session
        assert session is not None
        running = list(self._running)
        if len(running) == 1 and running[0].rows_ahead:
            self._pass_with_guesses(running[0], session)
            return
        rows_alone = max(self._pacer.rows_alone, session.least_rows)
        rows = compose([len(each.pending) for each in running], rows_alone, self._pacer.rows_beside)
        chosen = [(each, count) for each, count in zip(running, rows, strict=True) if count]
        self._begin_pass(chosen)
        parts = [each.part(count) for each, count in chosen]
        wanted = [count == len(each.pending) and each.pool is None for each, count in chosen]
        started = time.perf_counter()
        try:
            with self._recorder.watching(chosen):
                logits = session.decoder.forward_parts(parts, wanted)
        except PartError as exc:  # the others' rows are computed again, without it
            self._fail_one(chosen[exc.index][0], exc)
            return
        self._pacer.measured(sum(rows), time.perf_counter() - started)
        for each, count, row in zip(running, rows, spread(rows, logits), strict=True):
            with self._blaming(each):
                self._advance(each, count, row)
        self._tell_news(session)

    def _begin_pass(self, chosen: list[tuple[Running, int]]) -> None:
        with self._news:
            self._in_pass = chosen
            if self._closing or any(each.cancelled for each, _count in chosen):
                raise PassCancelledError

    def _pass_with_guesses(self, running: Running, session: Session) -> None:
        chosen = [(running, running.rows_ahead)]
        self._begin_pass(chosen)
        try:
            with self._recorder.watching(chosen):
                logits = running.compute_ahead(session.decoder)
        except PartError as exc:
            self._fail_one(running, exc)
            return
        with self._blaming(running):
            self._emit(running, running.choose_ahead(logits))
        self._tell_news(session)

    def _tell_news(self, session: Session) -> None:
        for note in self._watch.news(session.peers):
            self._note(note)

    def _note(self, note: str) -> None:
        """Tell every running request at once."""
        for running in self._running:
            running.notes.append(note)
            running.tell(Note(note))

    def _advance(self, running: Running, count: int, logits: object) -> None:
        """Its rows are computed: continue with its prompt, or choose a token."""
        if not count:
            return
        running.tell_progress(count)
        if logits is None:
            running.pending = running.pending[count:]
            if running.pool is not None and not running.pending:
                running.tell(Embedded(running.pool.vector()))
                self._complete(running, Finished("stop", "", 0))
            return
        self._emit(running, running.choose(logits))  # type: ignore[arg-type]

    def _emit(self, running: Running, events: Sequence[GeneratedToken | Finished]) -> None:
        for event in events:
            if isinstance(event, Finished):
                self._complete(running, event)
            else:
                running.emit(event)

    def _complete(self, running: Running, finished: Finished) -> None:
        """Finish a request: send its receipt, and keep its cache for the next turn."""
        session = self._session
        with self._news:
            if running in self._running:
                self._running.remove(running)
        if running.cache is not None and running.pool is None:
            self._caches.put(running.cache, running.request.conversation, len(running.request.prompt_ids))
        running.cache = None  # so that references to the request do not keep its memory
        running.teach(session)
        running.complete(finished, session if running.started else None)

    def _drop_cancelled(self) -> None:
        """End the cancelled requests; if none is left, let peers stop at once."""
        for running in [each for each in self._running if each.cancelled]:
            self._complete(running, running.cut_off("cancelled"))
            if not self._running and self._session is not None:
                self._session.rest()

    @contextmanager
    def _blaming(self, running: Running) -> Iterator[None]:
        """A failure in this block ends only this request; the others go on."""
        try:
            yield
        except Exception as exc:
            self._fail_one(running, exc)

    def _fail_one(self, running: Running, exc: Exception) -> None:
        """End one request with an error. Call this inside the exception handler."""
        with self._news:
            if running in self._running:
                self._running.remove(running)
        running.cache = None
        if not self._running and self._session is not None:
            self._session.rest()
        running.fail(Failed.of("a request", exc))

    def _correct(self, running: Running) -> None:
        """A result that it used is wrong: what followed is computed again, before more is shown."""
        assert self._session is not None, "it computed the result"
        self._begin_pass([(running, running.cache.length if running.cache else 0)])
        try:
            self._corrections.correct(running, self._session.decoder)
        except (WrongTextError, PartError) as exc:
            self._fail_one(running, exc)

    def _end_unfinished(self, reason: str) -> None:
        """Nobody computes what this device cannot: end all running requests with their text so far."""
        self._note(reason)
        for running in [*self._running]:
            self._complete(running, running.cut_off("error"))

    def _fail_all(self, failure: Failed) -> None:
        """A pass failed: end all of its requests with an error, and do not use this session again."""
        with self._news:
            failed = [*self._running]
            if not failed and self._waiting:
                failed = [self._waiting.popleft()]
            self._running.clear()
        for running in failed:
            running.cache = None
            running.fail(failure)
        self._close_session()
