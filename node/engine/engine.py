"""`Engine`: takes requests from any thread and finds a runner for each."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from node.engine.chunks import ChunkFeed
from node.engine.models import Models
from node.engine.request import Completed, Event, Failed, GenerationRequest, Listener
from node.engine.runner import SessionRunner
from node.engine.running import Running
from node.errors import KekahydeError
from node.execution.chunk import ChunkRecord
from node.execution.interrupt import Interrupt
from node.node import Node
from node.planning.placement import Lend
from node.privacy import Privacy
from node.session.config import SessionConfig
from node.session.session import Session
from node.store.library import Library
from node.store.stored import StoredModel

log = logging.getLogger(__name__)

MAX_REQUESTS = 256
"""Most requests that run or wait, of all runners together."""
MAX_RUNNERS = 8
"""Most sessions at the same time; each has its own connections and checks."""

Key = tuple[str, Privacy, Lend]


class QueueFullError(KekahydeError):
    """Too many requests are waiting."""


class DuplicateRequestError(KekahydeError):
    """A request with this id is already running or waiting."""


class Engine:
    """Requests of one serving node; a context manager."""

    def __init__(
        self,
        node: Node,
        library: Library,
        sessions: SessionConfig | None = None,
        default: str | None = None,
        draft: str | None = None,
    ) -> None:
        """
        Args:
            sessions: how sessions are formed, except for what each request says itself; by default with guards that
                the user named, or else with guards that the node chooses.
            default: id of the model for requests that name none; None: the first that is served.
            draft: id of the model that guesses tokens for those with its vocabulary, if a request does not say.
        """
        self._node = node
        named = node.config.named
        self._sessions = sessions or SessionConfig(named=named, by_guards=not named)
        self.models = Models(node, library, default, draft)
        self.feed = ChunkFeed()
        self._lock = threading.Lock()
        self._runners: dict[Key, SessionRunner] = {}
        self._under_way: dict[str, tuple[Running, SessionRunner]] = {}
        node.pads.is_busy = lambda: bool(self._under_way)
        self._on_event: list[Callable[[Running, Event], None]] = []

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_exc: object) -> None:
        """End every request, and tell every client."""
        with self._lock:
            runners = list(self._runners.values())
        for runner in runners:
            runner.close()
        for runner in runners:
            runner.join()

    def observe(self, observer: Callable[[Running, Event], None]) -> None:
        """Call `observer` for every event, before the request's own listener; it must not block."""
        self._on_event.append(observer)

    def submit(self, request: GenerationRequest, listener: Listener) -> None:
        """Queue a request; `listener` gets all of its events.

        Raises:
            PromptError: the model cannot compute the prompt.
            QueueFullError: too many requests are waiting.
            DuplicateRequestError: its id is in use.
        """
        running = Running(request, listener, self._heard)
        with self._lock:
            if request.id in self._under_way:
                raise DuplicateRequestError(f"a request {request.id!r} is already running: choose another id")
            if len(self._under_way) >= MAX_REQUESTS:
                raise QueueFullError(f"{MAX_REQUESTS} requests are already waiting: try again in a moment")
            key = (request.model.model_id, request.privacy, request.lend or self._sessions.lend)
            runner = self._runner(key, request.model)
            self._under_way[request.id] = (running, runner)
            while (position := runner.submit(running)) is None:
                del self._runners[key]  # it ended meanwhile
                runner = self._runner(key, request.model)
                self._under_way[request.id] = (running, runner)
        runner.announce(running, position)

    def ask(self, request: GenerationRequest) -> Iterator[Event]:
        """Queue a request and yield its events; a caller that stops reading cancels it.

        Raises:
            The errors of `submit`, and KekahydeError if the request fails later; its message is for the user.
        """
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.submit(request, events.put)
        try:
            while True:
                event = events.get()
                if isinstance(event, Failed):
                    raise KekahydeError(event.message)
                yield event
                if isinstance(event, Completed):
                    return
        finally:
            self.cancel(request.id)

    def cancel(self, request_id: str) -> bool:
        """Cancel a request; returns False if there is none with this id."""
        with self._lock:
            found = self._under_way.get(request_id)
        if found is None:
            return False
        running, runner = found
        runner.cancel(running)
        return True

    def requests(self) -> list[tuple[Running, Session | None]]:
        """Every running or waiting request, and its session, of which the mode and the spans may be read; None if
        there is none yet."""
        with self._lock:
            return [(running, runner.session) for running, runner in self._under_way.values()]

    @property
    def cache_usage(self) -> float:
        """Tokens in caches, as a share of the tokens that the running requests' caches could hold."""
        with self._lock:
            runners = list(self._runners.values())
            rooms = [running.request.model.config.context_length for running, _ in self._under_way.values()]
        return min(1.0, sum(runner.cached_tokens for runner in runners) / max(sum(rooms), 1)) if rooms else 0.0

    def _runner(self, key: Key, model: StoredModel) -> SessionRunner:
        """The runner for a model and a mode; if there are too many runners, an idle one is closed."""
        runner = self._runners.get(key)
        if runner is not None and not runner.ended:
            return runner
        self._runners = {other: each for other, each in self._runners.items() if not each.ended}
        if len(self._runners) >= MAX_RUNNERS:
            idle = next((other for other, each in self._runners.items() if not each.requests()), None)
            if idle is None:
                raise QueueFullError(f"{MAX_RUNNERS} models or modes are already in use: try again in a moment")
            self._runners.pop(idle).close()
        runner = SessionRunner(
            f"{model.name[:16]} {key[1].value}",
            self._open_session,
            lambda: self._fingerprint(model),
            self.feed,
            self._node.config.sends_all_rows,
        )
        self._runners[key] = runner
        return runner

    def _open_session(
        self, first: Running, on_change: Callable[[ChunkRecord], None], interrupt: Interrupt
    ) -> Session:
        request = first.request
        config = replace(
            self._sessions,
            privacy=request.privacy,
            lend=request.lend or self._sessions.lend,
            prompt_tokens=len(request.prompt_ids),
            new_tokens=request.params.max_tokens,
        )
        return Session(self._node, request.model, config, on_change, interrupt)

    def _fingerprint(self, model: StoredModel) -> object:
        """A fingerprint of the peers with which a session of this model could be formed."""
        usable = self._node.registry.usable()
        holders = frozenset(
            (peer.peer_id, peer.data_endpoint, peer.hosts(model.model_id_bytes), peer.hello.work) for peer in usable
        )
        devices = self._node.trust.devices
        return holders, devices.peer_ids, devices.readers

    def _heard(self, running: Running, event: Event) -> None:
        if isinstance(event, Completed | Failed):
            with self._lock:
                self._under_way.pop(running.request.id, None)
        for observer in self._on_event:
            observer(running, event)
