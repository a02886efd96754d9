"""What the handlers share: one object per gateway, under typed keys of the app."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from aiohttp import web
from msgspec import Struct

from node.engine import Engine
from node.gateway.http.access import AccessRules
from node.gateway.http.connection import Connections
from node.gateway.http.keys import KeyBook
from node.gateway.http.logs import LogFeed
from node.gateway.http.metrics import Metrics
from node.node import Node

P = ParamSpec("P")
R = TypeVar("R")


class GatewayContext(Struct):
    """The node behind a gateway and what its handlers need."""

    node: Node
    engine: Engine
    metrics: Metrics
    logs: LogFeed
    connections: Connections
    preparers: ThreadPoolExecutor
    """For work that reads the disk or takes a while."""
    socket_rules: AccessRules
    url: str | None
    keys: KeyBook
    operations_waiting: int = 0

    async def in_background(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a blocking call in another thread and return its result."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.preparers, lambda: call(*args, **kwargs))


CONTEXT = web.AppKey("context", GatewayContext)
RULES = web.AppKey("rules", AccessRules)
"""The rules of the TCP site."""
