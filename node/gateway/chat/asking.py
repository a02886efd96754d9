"""What every handler of answers does first: the key's limits, then the requests to the engine."""

from __future__ import annotations

from aiohttp import web
from msgspec.structs import replace

from node.gateway.chat.asked import Asked
from node.gateway.chat.prepare import Prepared, prepare
from node.gateway.http.app import caller_of
from node.gateway.http.context import CONTEXT


async def prepared_for(request: web.Request, asked: Asked, request_id: str, counts: bool = True) -> Prepared:
    """The complete requests; raises as `prepare` does, and ApiError where the caller's key does not allow them.

    Args:
        counts: whether it counts against the key's limit; only once for a request that is cut into several.
    """
    context = request.app[CONTEXT]
    key = caller_of(request).key
    if key is not None:
        asked = replace(asked, privacy=key.privacy(asked.privacy))
        if counts:
            context.keys.count(key)
    name = context.connections.name_of(request)
    return await context.in_background(prepare, context.engine, asked, request_id, name)
