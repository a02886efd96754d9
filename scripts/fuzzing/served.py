"""A whole node in this process with its engine and gateway, for targets that a program reaches.

It listens nowhere but on its Unix socket, and serves the smallest of models beside the built-in one.
"""

from __future__ import annotations

import atexit
import functools
import logging
import socket
import tempfile
import traceback
from contextlib import ExitStack
from pathlib import Path

from node.config import NodeConfig
from node.engine import Engine
from node.gateway.client.connection import connect
from node.gateway.config import GatewayConfig
from node.gateway.server import Gateway
from node.node import Node
from node.store.importer import import_checkpoint
from node.store.library import Library
from scripts.fuzzing import samples
from scripts.fuzzing.files import checkpoint_folder, scratch

ANSWER_S = 20.0
PATIENCE_S = 0.3
"""How long an answer to a request that may be incomplete is waited for."""


class Complaints(logging.Handler):
    """What the node's log says of errors that nobody expected."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        trace = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        self._said.append(f"{record.getMessage()} {trace}"[-1500:])

    def raise_them(self) -> None:
        """Raises RuntimeError where there are any."""
        if self._said:
            said, self._said = self._said, []
            raise RuntimeError(said[0])


class Served:
    """What runs."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        """What ends with it."""
        self.data_dir = Path(tempfile.mkdtemp(prefix="node-", dir=scratch()))
        models = self.data_dir / "models"
        import_checkpoint(checkpoint_folder(), models, "tiny")
        library = Library(models)
        self.tiny, self.story = library.resolve("tiny"), library.resolve("story")
        self.complaints = Complaints()
        logging.getLogger().addHandler(self.complaints)
        stack.callback(logging.getLogger().removeHandler, self.complaints)
        config = NodeConfig(samples.ME, None, threads=1, models_dir=models)
        self.node = stack.enter_context(Node(config, [self.tiny]))
        self.engine = stack.enter_context(Engine(self.node, library))
        stack.enter_context(Gateway(self.node, self.engine, GatewayConfig(self.data_dir, tcp=False)))

    def connect(self) -> socket.socket:
        """A connection to the gateway."""
        return connect(self.data_dir, ANSWER_S)


_stack = ExitStack()


@functools.cache
def served() -> Served:
    """The one of this process; it ends with the process, or by `end`."""
    atexit.register(end)
    return Served(_stack)


def end() -> None:
    """End it, if there is one: who asks later gets another."""
    served.cache_clear()
    _stack.close()
