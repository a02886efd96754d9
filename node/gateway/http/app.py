"""The checks that every request passes before it reaches a handler, and how errors become answers."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import web

from node.errors import KekahydeError
from node.gateway.http.access import AccessRules, Caller
from node.gateway.http.context import CONTEXT, RULES
from node.gateway.http.errors import ApiError, api_error_of
from node.gateway.http.limits import BODY_LIMIT_S, MAX_BODY_BYTES, MAX_CHUNKING_BYTES, MAX_JSON_DEPTH

log = logging.getLogger(__name__)

FOR_KEYS = ("/v1/", "/api/", "/health")
"""Where a key for programs is enough; management asks for the token there, too."""
APIS = "OpenAI's API is under /v1, Anthropic's at /v1/messages, Ollama's under /api (SPEC.md, «Gateway»)"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def caller_of(request: web.Request) -> Caller:
    """What a request says about its source."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    shown = token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key")  # Anthropic's clients
    shown = shown or request.query.get("token")
    return Caller(
        request.headers.get("Host", ""),
        request.headers.get("Origin"),
        request.headers.get("Sec-Fetch-Site"),
        shown,
        request.app[CONTEXT].keys.find(shown) if request.path.startswith(FOR_KEYS) else None,
    )


@web.middleware
async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Check access, then call the handler; every error becomes one JSON object."""
    request.app[CONTEXT].connections.began(request)
    try:
        rules = rules_of(request)
        if request.method == "OPTIONS":
            rules.check_preflight(caller_of(request))
            return _preflight()
        rules.check(caller_of(request))
        return await handler(request)
    except ApiError as exc:
        return _refuse(request, exc)
    except KekahydeError as exc:
        return _refuse(request, api_error_of(exc))
    except web.HTTPRequestEntityTooLarge:
        return _refuse(
            request, ApiError(413, f"the body has more than {MAX_BODY_BYTES} bytes: send less", "body_too_large")
        )
    except web.HTTPNotFound:
        return _refuse(request, ApiError(404, f"there is no {request.path}: {APIS}", "unknown_url"))
    except web.HTTPMethodNotAllowed as exc:
        allowed = ", ".join(sorted(exc.allowed_methods))
        message = f"{request.path} does not accept {request.method}: use {allowed}"
        return _refuse(request, ApiError(405, message, "method_not_allowed", headers={"Allow": allowed}))
    except web.HTTPException:
        raise
    except ConnectionError:
        raise  # the client has left; `is_worth_a_line` keeps this out of the log
    except Exception as exc:
        log.exception("a request to %s failed", request.path)
        return _refuse(request, ApiError(500, f"the node failed ({type(exc).__name__}): see its log", "internal"))
    finally:
        request.app[CONTEXT].connections.ended(request)


def rules_of(request: web.Request) -> AccessRules:
    """The rules of the site (TCP or Unix socket) through which a request came in."""
    transport = request.transport
    name = None if transport is None else transport.get_extra_info("sockname")
    context = request.app[CONTEXT]
    return context.socket_rules if isinstance(name, str | bytes) else request.app[RULES]


async def read_json(request: web.Request) -> dict[str, Any]:
    """The body as one JSON object; raises ApiError."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ApiError(400, "compressed bodies are not supported: send it uncompressed", "unsupported_encoding")
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, request.content_length or 0)
    try:
        async with asyncio.timeout(BODY_LIMIT_S):
            raw = await _read_body(request)
    except TimeoutError:
        raise ApiError(
            408, f"the body did not arrive within {BODY_LIMIT_S:.0f} s: send it again", "timeout"
        ) from None
    return parse_object(raw)


async def _read_body(request: web.Request) -> bytes:
    """The whole body; raises HTTPRequestEntityTooLarge as soon as it is too large. aiohttp's own `read` would first
    hold the same amount again in memory."""
    body, connections = bytearray(), request.app[CONTEXT].connections
    async for piece in request.content.iter_any():
        body += piece
        too_large = len(body) > MAX_BODY_BYTES
        if too_large or connections.taken_bytes(request) > len(body) + MAX_CHUNKING_BYTES:
            raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, len(body))
    return bytes(body)


def parse_object(raw: bytes | str) -> dict[str, Any]:
    """Parse one JSON object; raises ApiError that says what is wrong."""
    try:
        value = parse_json(raw)
    except ValueError as exc:
        raise ApiError(400, f"the body is not valid JSON: {exc}", "invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, 'the body must be a JSON object, such as {"model": ...}', "invalid_json")
    return value


def parse_json(raw: bytes | str) -> Any:
    """Parse JSON of bounded depth; raises ValueError. What passes can be walked through and written again."""
    try:
        value = json.loads(raw)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [part for one in level for part in _parts(one) if isinstance(part, dict | list)]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def json_text(value: object) -> str:
    """JSON that can be sent. Half a surrogate pair, which a program may have sent as an escape, is one again."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def _parts(value: Any) -> Iterable[Any]:
    match value:
        case dict():
            return value.values()
        case list():
            return value
        case _:
            return ()


def _preflight() -> web.Response:
    """The answer to a browser's preflight, whose Origin is allowed. The page may send any header: libraries add their
    own (`X-Stainless-*`), and none of those decides access. `*` covers every header but Authorization."""
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": "GET, POST",
            "Access-Control-Allow-Headers": "*, Authorization",
            "Access-Control-Max-Age": "600",
        },
    )


async def add_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Add the headers of every answer; they let a page on loopback read it."""
    origin = request.headers.get("Origin")
    response.headers["X-Content-Type-Options"] = "nosniff"
    if origin is not None and response.status != 403:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = "Retry-After"
        response.headers["Vary"] = "Origin"


def _refuse(request: web.Request, error: ApiError) -> web.Response:
    return error.as_response(request.path)
