"""`POST /control` and the same over `/ws`: management operations, each in its own thread."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from node.errors import KekahydeError
from node.gateway.http.access import AccessRules, Caller
from node.gateway.http.app import caller_of, read_json, rules_of
from node.gateway.http.context import CONTEXT, GatewayContext
from node.gateway.http.errors import ApiError, api_error_of
from node.gateway.http.limits import MAX_OPERATIONS_WAITING
from node.gateway.http.threads import in_thread
from node.operations import OPERATIONS, READING

log = logging.getLogger(__name__)


async def control(request: web.Request) -> web.Response:
    """`{"op": NAME, ...}` -> `{"ok": true, "result": {...}}`."""
    arguments = await read_json(request)
    result = await perform(request.app[CONTEXT], rules_of(request), caller_of(request), arguments)
    return web.json_response({"ok": True, "result": result})


async def perform(
    context: GatewayContext, rules: AccessRules, caller: Caller, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Perform an operation and return its result; raises ApiError."""
    name = arguments.get("op")
    if not isinstance(name, str) or name not in OPERATIONS:
        known = ", ".join(sorted(OPERATIONS))
        raise ApiError(
            404, f"no operation is called {str(name)[:64]!r}; the operations are: {known}", "unknown_op", "op"
        )
    if name not in READING:
        rules.require_token(caller)
    if context.operations_waiting >= MAX_OPERATIONS_WAITING:
        raise ApiError(429, "too many operations are waiting: try again in a moment", "busy")
    context.operations_waiting += 1
    try:
        rest = {key: value for key, value in arguments.items() if key not in ("op", "id")}
        return await in_thread(OPERATIONS[name], context.node, rest)
    except KekahydeError as exc:
        error = api_error_of(exc)
        raise ApiError(409, str(exc), error.code) if error.status >= 500 else error from exc
    except Exception as exc:
        log.exception("the operation %s failed", name)
        raise ApiError(500, f"the operation {name} failed ({type(exc).__name__}): see the node's log") from exc
    finally:
        context.operations_waiting -= 1
