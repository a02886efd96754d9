"""`/api/tags`, `/api/show`, `/api/ps`, `/api/version`, `/api/pull`: models, as Ollama's clients expect them."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from node.engine.models import ListedModel
from node.gateway.chat.dialect import THOUGHT_ENDS, dialect_of
from node.gateway.chat.sse import EventWriter
from node.gateway.http.app import caller_of, read_json, rules_of
from node.gateway.http.context import CONTEXT, GatewayContext
from node.gateway.http.control import perform
from node.gateway.http.errors import ApiError
from node.gateway.ollama.endpoints import json_lines
from node.version import VERSION

API_VERSION = "0.12.6"
"""The release of Ollama whose API this follows: clients refuse older ones."""
POLL_S = 0.25
UNDATED = "1970-01-01T00:00:00Z"
"""Models have no date here."""


async def version(request: web.Request) -> web.Response:
    """GET /api/version."""
    return web.json_response({"version": API_VERSION, "kekahyde": VERSION})


async def tags(request: web.Request) -> web.Response:
    """GET /api/tags."""
    context = request.app[CONTEXT]
    listed = await context.in_background(context.engine.models.usable)
    return web.json_response({"models": [_entry(model) for model in listed]})


async def running(request: web.Request) -> web.Response:
    """GET /api/ps: the models with requests under way."""
    context = request.app[CONTEXT]
    busy = {running.request.model.model_id for running, _session in context.engine.requests()}
    listed = await context.in_background(context.engine.models.usable)
    here = [model for model in listed if model.summary.model_id in busy]
    return web.json_response({"models": [{**_entry(model), "expires_at": UNDATED, "size_vram": 0} for model in here]})


async def show(request: web.Request) -> web.Response:
    """POST /api/show."""
    context, body = request.app[CONTEXT], await read_json(request)
    name = body.get("model") or body.get("name")
    if not isinstance(name, str):
        raise ApiError(400, "model must be the name of a model; GET /api/tags lists them", "invalid_value", "model")
    return web.json_response(await context.in_background(_shown, context, name))


async def pull(request: web.Request) -> web.StreamResponse:
    """POST /api/pull; as all management it needs the token."""
    body = await read_json(request)
    name = body.get("model") or body.get("name")
    job = await _perform(request, {"op": "pull", "model": name})
    if body.get("stream") is False:
        while (last := await _job(request, job["id"]))["state"] == "running":
            await asyncio.sleep(POLL_S)
        return web.json_response({"status": _ended(last)})
    writer = EventWriter(request, "application/x-ndjson", keep_alive=b"")
    await writer.open()
    try:
        while True:
            last = await _job(request, job["id"])
            if last["state"] != "running":
                said = _ended(last)
                await writer.write(json_lines([{"status": said} if said == "success" else {"error": said}]))
                return await writer.close()
            total = {"total": last["total_bytes"], "completed": last["done_bytes"]} if last["total_bytes"] else {}
            await writer.write(json_lines([{"status": f"pulling {name}", **total}]))
            await asyncio.sleep(POLL_S)
    except (TimeoutError, ConnectionError):
        return writer.abort()


async def _perform(request: web.Request, arguments: dict[str, Any]) -> dict[str, Any]:
    return await perform(request.app[CONTEXT], rules_of(request), caller_of(request), arguments)


async def _job(request: web.Request, job_id: str) -> dict[str, Any]:
    listed = await _perform(request, {"op": "transfers"})
    return next(job for job in listed["transfers"] if job["id"] == job_id)


def _ended(job: dict[str, Any]) -> str:
    return "success" if job["state"] == "done" else str(job.get("error") or job["state"])


def _entry(model: ListedModel) -> dict[str, Any]:
    summary = model.summary
    return {
        "name": model.name,
        "model": model.name,
        "modified_at": UNDATED,
        "size": summary.weights_bytes,
        "digest": summary.model_id,
        "details": _details(model),
    }


def _details(model: ListedModel) -> dict[str, Any]:
    kind = model.summary.model_type
    size = f"{model.summary.num_weights / 1e6:.1f}M"
    return {
        "parent_model": "",
        "format": "kekahyde",
        "family": kind,
        "families": [kind],
        "parameter_size": size,
        "quantization_level": "W8",
    }


def _shown(context: GatewayContext, name: str) -> dict[str, Any]:
    stored = context.engine.models.resolve(name)
    listed = next(model for model in context.engine.models.usable() if model.summary.model_id == stored.model_id)
    kind, template = listed.summary.model_type, stored.chat_template
    source = "" if template is None else template.source
    capabilities = ["completion"]
    capabilities += ["tools"] if dialect_of(source) is not None else []
    capabilities += ["thinking"] if THOUGHT_ENDS in source else []
    return {
        "license": "",
        "modelfile": f"FROM {listed.name}\n",
        "parameters": "",
        "template": source,
        "modified_at": UNDATED,
        "details": _details(listed),
        "model_info": {
            "general.architecture": kind,
            "general.parameter_count": listed.summary.num_weights,
            f"{kind}.block_count": listed.summary.num_layers,
            f"{kind}.context_length": listed.summary.context_length,
        },
        "capabilities": capabilities,
    }
