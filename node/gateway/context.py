"""What the handlers share: one object for a gateway, under typed keys of the app."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from aiohttp import web

from node.engine import Engine
from node.gateway.access import AccessRules
from node.gateway.connection import Connections
from node.gateway.logs import LogFeed
from node.gateway.metrics import Metrics
from node.node import Node

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True)
class GatewayContext:
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


if TYPE_CHECKING:
    from node.gateway.feed import Broadcaster

CONTEXT = web.AppKey("context", GatewayContext)
RULES = web.AppKey("rules", AccessRules)
"""Of the TCP site."""
FEED: web.AppKey[Broadcaster] = web.AppKey("feed")
