"""Which path leads to which handler."""

from __future__ import annotations

from aiohttp import web

from node.gateway.control import control


def add_routes(app: web.Application) -> None:
    """All routes of the gateway."""
    app.router.add_post("/control", control)
