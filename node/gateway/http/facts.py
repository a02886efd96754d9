"""`/`, `/health` and `/metrics`."""

from __future__ import annotations

import html

from aiohttp import web

from node.gateway.http.context import CONTEXT

PAGE = """<!doctype html>
<meta charset="utf-8"><title>Kekahyde</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 42em; margin: 3em auto; padding: 0 1em }}</style>
<h1>Kekahyde is running</h1>
<p>This is the address for programs on this device. It is not a web page to chat with: <code>kekahyde-node tui</code>
opens the interface of this node, <code>kekahyde-node --web</code> one in the browser.</p>
<ul>
<li>OpenAI's API: <code>{address}/v1</code> (<a href="/v1/models">models</a>)</li>
<li>Anthropic's API: <code>{address}</code> (it adds <code>/v1/messages</code>)</li>
<li>Ollama's API: <code>{address}</code> (it adds <code>/api</code>; <a href="/api/tags">models</a>)</li>
</ul>
<p>Any text serves as the key on this device. The header <code>X-Kekahyde-Privacy</code> (auto, local, split, strict,
trusted) says who may see what.</p>
"""


async def home(request: web.Request) -> web.Response:
    """GET /: what this is, for people who open it in a browser."""
    address = html.escape(f"http://{request.host}")
    return web.Response(text=PAGE.format(address=address), content_type="text/html")


async def health(request: web.Request) -> web.Response:
    """GET /health: says that the node answers."""
    context = request.app[CONTEXT]
    peers = len(context.node.registry.peers())
    requests = len(context.engine.requests())
    models = context.node.hosted.models
    return web.json_response(
        {
            "status": "ok",
            "peer_id": context.node.peer_id,
            "peers": peers,
            "requests": requests,
            "gateway": context.url,
            "model": models[0].name if models else context.engine.models.default_name,
            "models": [{"name": model.name, "context": model.config.context_length} for model in models],
        }
    )


async def metrics(request: web.Request) -> web.Response:
    """GET /metrics: the metrics in Prometheus' text format."""
    text = request.app[CONTEXT].metrics.text()
    return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
