"""The handler of each path."""

from __future__ import annotations

from aiohttp import web

from node.gateway.http.control import control
from node.gateway.http.facts import health, metrics
from node.gateway.live.websocket import websocket
from node.gateway.openai.endpoints import chat_completions, completions, get_model, list_models


def add_routes(app: web.Application) -> None:
    """Add all routes of the gateway."""
    app.router.add_get("/health", health)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/v1/models", list_models)
    app.router.add_get("/v1/models/{model}", get_model)
    app.router.add_post("/v1/chat/completions", chat_completions)
    app.router.add_post("/v1/completions", completions)
    app.router.add_post("/control", control)
    app.router.add_get("/ws", websocket)
