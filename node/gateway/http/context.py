"""What the handlers share: one object for a gateway, under typed keys of the app."""

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
    """For what reads the disk or works for a while."""
    socket_rules: AccessRules
    url: str | None
    operations_waiting: int = 0

    async def in_background(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The result of something that blocks for a while."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.preparers, lambda: call(*args, **kwargs))


CONTEXT = web.AppKey("context", GatewayContext)
RULES = web.AppKey("rules", AccessRules)
"""Of the TCP site."""
