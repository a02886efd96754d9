"""`Gateway`: a thread with an event loop that serves the same app on TCP and on a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from node.engine import Engine
from node.errors import ConfigError
from node.gateway.config import GatewayConfig
from node.gateway.http.access import AccessRules
from node.gateway.http.addresses import is_loopback
from node.gateway.http.app import add_headers, admit
from node.gateway.http.connection import Connections, guarded, room_for_connections
from node.gateway.http.context import CONTEXT, RULES, GatewayContext
from node.gateway.http.keys import KeyBook
from node.gateway.http.limits import (
    DEFAULT_PORT,
    IDLE_LIMIT_S,
    LINGER_S,
    MAX_BODY_BYTES,
    MAX_HEADER_LINE_BYTES,
    MAX_HEADERS,
    PREPARING_THREADS,
)
from node.gateway.http.logs import LogFeed, is_worth_a_line
from node.gateway.http.metrics import Metrics
from node.gateway.live.feed import FEED, Broadcaster
from node.gateway.routes import add_routes
from node.node import Node
from node.paths import default_data_dir
from node.places import new_socket_path, remove_socket, token_of
from node.process.endurance import endure
from node.store.files import replace_atomically

log = logging.getLogger(__name__)

BACKLOG = 128
PORT_FILE = "gateway.port"
START_LIMIT_S = 10.0
STOP_LIMIT_S = 3.0
RUNNER_OPTIONS: dict[str, Any] = {
    "access_log": None,
    "handler_cancellation": True,
    "keepalive_timeout": IDLE_LIMIT_S,
    "lingering_time": LINGER_S,
    "max_line_size": MAX_HEADER_LINE_BYTES,
    "max_field_size": MAX_HEADER_LINE_BYTES,
    "max_headers": MAX_HEADERS,
    "auto_decompress": False,
    "shutdown_timeout": 1.0,
}


class Gateway:
    """The gateway of a running node; a context manager."""

    def __init__(self, node: Node, engine: Engine, config: GatewayConfig) -> None:
        self._node = node
        self._engine = engine
        self._config = config
        self._thread = threading.Thread(target=self._main, name="gateway", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leaving: asyncio.Event | None = None
        self._ready = threading.Event()
        self._metrics = Metrics(node, engine)
        self._logs = LogFeed()
        self._stopping = False
        self._failure: BaseException | None = None
        self.url: str | None = None
        """The address for programs; None without TCP."""

    def __enter__(self) -> Self:
        """Bind and serve. Raises ConfigError if the address is not available."""
        config = self._config
        self._tcp = _bind_tcp(config) if config.tcp else None
        if self._tcp is not None:
            host = f"[{config.host}]" if ":" in config.host else config.host
            self.url = f"http://{host}:{self._tcp.getsockname()[1]}"
        try:
            self._token = token_of(config.data_dir)
            self._path = new_socket_path(config.data_dir)
            self._unix = _bind_unix(self._path)
        except BaseException:
            if self._tcp is not None:
                self._tcp.close()
            raise
        logging.getLogger().addHandler(self._logs)
        logging.getLogger("aiohttp.server").addFilter(is_worth_a_line)
        self._thread.start()
        self._ready.wait(START_LIMIT_S)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stopping = True
        if self._loop is not None and self._leaving is not None:
            with contextlib.suppress(RuntimeError):  # the loop has already ended by itself
                self._loop.call_soon_threadsafe(self._leaving.set)
        self._thread.join(STOP_LIMIT_S)
        logging.getLogger().removeHandler(self._logs)
        remove_socket(self._config.data_dir, self._path)

    # --- the thread

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as exc:
            if self._ready.is_set() and not self._stopping:
                log.exception("the gateway ended")
                self._node.part_ended("the gateway", exc)
            self._failure = exc
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        leaving = self._leaving = asyncio.Event()
        connections = Connections(room_for_connections())
        preparers = ThreadPoolExecutor(PREPARING_THREADS, "preparing")
        app = self._app(connections, preparers)
        runner = web.AppRunner(app, **RUNNER_OPTIONS)
        await runner.setup()
        assert runner.server is not None
        factory = guarded(runner.server, connections)
        servers = [await loop.create_unix_server(factory, sock=self._unix, backlog=BACKLOG)]
        if self._tcp is not None:
            servers.append(await loop.create_server(factory, sock=self._tcp, backlog=BACKLOG))
        feed = asyncio.create_task(endure("the gateway's feed", app[FEED].run))
        feed.add_done_callback(lambda _task: leaving.set())
        self._ready.set()
        await leaving.wait()
        for server in servers:
            server.close()
        feed.cancel()
        await runner.cleanup()
        preparers.shutdown(wait=False, cancel_futures=True)
        if feed.done() and not feed.cancelled():
            feed.result()  # the feed was given up, so the gateway ends too

    def _app(self, connections: Connections, preparers: ThreadPoolExecutor) -> web.Application:
        app = web.Application(middlewares=[admit], client_max_size=MAX_BODY_BYTES)
        app[RULES] = AccessRules(self._token, beyond_loopback=not is_loopback(self._config.host))
        context = app[CONTEXT] = GatewayContext(
            self._node,
            self._engine,
            self._metrics,
            self._logs,
            connections,
            preparers,
            AccessRules(self._token, local_socket=True),
            self.url,
            KeyBook(self._config.data_dir),
        )
        app[FEED] = Broadcaster(context)
        app.on_response_prepare.append(add_headers)
        add_routes(app)
        return app


def _bind_tcp(config: GatewayConfig) -> socket.socket:
    """A bound socket; raises ConfigError if the user asked for a port that is taken."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    ports = [config.port] if config.port is not None else [0]
    kept = config.data_dir / PORT_FILE
    if config.port is None:
        known = DEFAULT_PORT if config.data_dir == default_data_dir() else _kept_port(kept)
        ports = [0] if known is None else [known, 0]
    problem: OSError | None = None
    for port in ports:
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((config.host, port))
            bound.listen(BACKLOG)
        except OSError as exc:
            bound.close()
            problem = exc
        else:
            if problem is not None:
                taken = f"{config.host}:{ports[0]} is taken ({problem.strerror})"
                log.warning("%s: programs reach this node at port %d instead", taken, bound.getsockname()[1])
            elif config.port is None:
                with contextlib.suppress(OSError):  # it has another port at the next start
                    replace_atomically(kept, str(bound.getsockname()[1]).encode(), 0o600)
            return bound
    assert problem is not None
    raise ConfigError(
        f"the gateway cannot listen on {config.host}:{ports[-1]}: {problem.strerror}; "
        "give another address with --gateway, or --no-gateway"
    ) from problem


def _kept_port(path: Path) -> int | None:
    """The port of the last start on this data directory; None if there was none."""
    try:
        port = int(path.read_bytes()[:8])
    except (OSError, ValueError):
        return None
    return port if 0 < port < 65536 else None


def _bind_unix(path: Path) -> socket.socket:
    """A socket to which no other user can connect: it listens only once its mode is set."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(str(path))
        os.chmod(path, 0o600)
    except OSError as exc:
        bound.close()
        raise ConfigError(f"cannot create the control socket {path}: {exc.strerror}") from exc
    return bound
