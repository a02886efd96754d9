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


def call_node(data_dir: Path, op: str, **arguments: Any) -> dict[str, Any]:
    """Perform a management operation on the node that runs on `data_dir`, and return its result.

    Raises:
        NodeNotRunningError: no node runs there.
        OperationError: the node refused; the message is the node's.
    """
    connection = http.client.HTTPConnection("localhost", timeout=ANSWER_TIMEOUT_S)
    connection.sock = connect(data_dir, ANSWER_TIMEOUT_S)
    try:
        body = json.dumps({"op": op, **arguments})
        connection.request("POST", "/control", body, {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise OperationError(f"the node on {data_dir} did not answer ({exc}): check whether it still runs") from exc
    finally:
        connection.close()
    if "error" in answer:
        raise OperationError(str(answer["error"]["message"]))
    return dict(answer["result"])
