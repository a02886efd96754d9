"""`/health` and `/metrics`."""

from __future__ import annotations

from aiohttp import web

from node.gateway.http.context import CONTEXT


async def health(request: web.Request) -> web.Response:
    """GET /health: says that the node answers."""
    context = request.app[CONTEXT]
    peers = len(context.node.registry.peers())
    requests = len(context.engine.requests())
    return web.json_response({"status": "ok", "peer_id": context.node.peer_id, "peers": peers, "requests": requests})


async def metrics(request: web.Request) -> web.Response:
    """GET /metrics: the metrics in Prometheus' text format."""
    text = request.app[CONTEXT].metrics.text()
    return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
