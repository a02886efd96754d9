"""What the handlers share: one object for a gateway, under typed keys of the app."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from aiohttp import web

from node.gateway.access import AccessRules
from node.gateway.connection import Connections
from node.node import Node


@dataclass(slots=True)
class GatewayContext:
    """The node behind a gateway and what its handlers need."""

    node: Node
    connections: Connections
    workers: ThreadPoolExecutor
    socket_rules: AccessRules
    url: str = ""
    operations_waiting: int = 0


CONTEXT = web.AppKey("context", GatewayContext)
RULES = web.AppKey("rules", AccessRules)
"""Of the TCP site."""
