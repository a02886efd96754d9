"""The handler of each path."""

from __future__ import annotations

from aiohttp import web

from node.gateway.anthropic.endpoints import count_tokens, messages
from node.gateway.http.control import control
from node.gateway.http.facts import health, home, metrics
from node.gateway.live.websocket import websocket
from node.gateway.ollama.endpoints import chat, embed, generate
from node.gateway.ollama.models import pull, running, show, tags, version
from node.gateway.openai.embeddings import embeddings
from node.gateway.openai.endpoints import chat_completions, completions, get_model, list_models
from node.gateway.openai.remembered import REMEMBERED, Remembered
from node.gateway.openai.responses import responses


def add_routes(app: web.Application) -> None:
    """Add all routes of the gateway."""
    app[REMEMBERED] = Remembered()
    app.router.add_get("/", home)
    app.router.add_get("/health", health)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/v1/models", list_models)
    app.router.add_get("/v1/models/{model}", get_model)
    app.router.add_post("/v1/chat/completions", chat_completions)
    app.router.add_post("/v1/completions", completions)
    app.router.add_post("/v1/embeddings", embeddings)
    app.router.add_post("/v1/responses", responses)
    app.router.add_post("/v1/messages", messages)
    app.router.add_post("/v1/messages/count_tokens", count_tokens)
    app.router.add_post("/api/chat", chat)
    app.router.add_post("/api/generate", generate)
    app.router.add_post("/api/embed", embed)
    app.router.add_post("/api/pull", pull)
    app.router.add_post("/api/show", show)
    app.router.add_get("/api/ps", running)
    app.router.add_get("/api/tags", tags)
    app.router.add_get("/api/version", version)
    app.router.add_post("/control", control)
    app.router.add_get("/ws", websocket)
