"""How a command reaches the node that runs on a data directory: one JSON request over its Unix socket.

It uses only the standard library, so that a command starts fast.
"""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

from node.errors import OperationError
from node.gateway.client.connection import connect

ANSWER_TIMEOUT_S = 600.0
"""Long, because some operations wait for a person at another device."""


def facts_of_node(data_dir: Path) -> dict[str, Any]:
    """What `/health` says of the node that runs on `data_dir`; raises as `call_node` does."""
    return _ask(data_dir, "GET", "/health", None)


def call_node(data_dir: Path, op: str, **arguments: Any) -> dict[str, Any]:
    """Perform a management operation on the node that runs on `data_dir`, and return its result.

    Raises:
        NodeNotRunningError: no node runs there.
        OperationError: the node refused; the message is the node's.
    """
    answer = _ask(data_dir, "POST", "/control", json.dumps({"op": op, **arguments}))
    if "error" in answer:
        raise OperationError(str(answer["error"]["message"]))
    return dict(answer["result"])


def _ask(data_dir: Path, method: str, path: str, body: str | None) -> dict[str, Any]:
    connection = http.client.HTTPConnection("localhost", timeout=ANSWER_TIMEOUT_S)
    connection.sock = connect(data_dir, ANSWER_TIMEOUT_S)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        return dict(json.loads(connection.getresponse().read()))
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise OperationError(f"the node on {data_dir} did not answer ({exc}): check whether it still runs") from exc
    finally:
        connection.close()
