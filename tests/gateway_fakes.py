"""A whole serving node inside this process: node, engine and gateway over the built-in model, or another."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from made_parts import identity

from node.config import NodeConfig
from node.engine import Engine, GenerationRequest
from node.engine.request import Completed, Event, Failed, Token
from node.engine.running import Running
from node.gateway.config import GatewayConfig
from node.gateway.server import Gateway
from node.model.sampling import SamplingParams
from node.node import Node
from node.privacy import Privacy
from node.store.importer import import_checkpoint
from node.store.library import Library
from node.store.stored import StoredModel

WAIT_S = 20.0


class Serving:
    """What runs, and how to ask it."""

    def __init__(self, node: Node, engine: Engine, gateway: Gateway, model: StoredModel, data_dir: Path) -> None:
        self.node = node
        self.engine = engine
        self.gateway = gateway
        self.model = model
        self.data_dir = data_dir
        assert gateway.url is not None
        self.url = gateway.url
        self.port = int(self.url.rpartition(":")[2])
        self.finish_reasons: list[str] = []
        engine.observe(self._heard)

    def ask(self, name: str, prompt: str, params: SamplingParams, privacy: Privacy = Privacy.LOCAL) -> Asked:
        """Submit a request to the engine itself."""
        asked = Asked()
        prompt_ids = tuple(self.model.tokenizer().encode(prompt))
        self.engine.submit(GenerationRequest(name, self.model, prompt_ids, params, privacy, True), asked.events.put)
        return asked

    def until_cancelled(self, number: int) -> None:
        """Wait until no request runs and the last `number` that ended were cancelled."""
        deadline = time.monotonic() + WAIT_S
        while self.engine.requests() or self.finish_reasons[-number:] != ["cancelled"] * number:
            assert time.monotonic() < deadline, f"requests ended: {self.finish_reasons[-number:]}"
            time.sleep(0.002)

    def _heard(self, _running: Running, event: Event) -> None:
        if isinstance(event, Completed):
            self.finish_reasons.append(event.receipt.finish_reason)


class Asked:
    """Events of one request."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.heard: list[Event] = []

    def next(self) -> Event:
        self.heard.append(self.events.get(timeout=WAIT_S))
        return self.heard[-1]

    def finish(self) -> Completed | Failed:
        """Read to the last event."""
        while not isinstance(event := self.next(), Completed | Failed):
            pass
        return event

    @property
    def token_ids(self) -> list[int]:
        return [event.id for event in self.heard if isinstance(event, Token)]


@contextmanager
def serving(data_dir: Path, checkpoint: Path | None = None, host: str = "127.0.0.1") -> Iterator[Serving]:
    """A node with the built-in model, or with a checkpoint as `puppet`; listens nowhere but with its gateway."""
    library = Library(data_dir / "models")
    if checkpoint is not None:
        import_checkpoint(checkpoint, data_dir / "models", "puppet")
    model = library.resolve("story" if checkpoint is None else "puppet")
    with (
        Node(NodeConfig(identity(7), None, threads=1), [model]) as node,
        Engine(node, library) as engine,
        Gateway(node, engine, GatewayConfig(data_dir, host=host)) as gateway,
    ):
        yield Serving(node, engine, gateway, model, data_dir)
