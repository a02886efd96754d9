"""`join`: enter the swarm of an invitation while the node runs; `restart`: start again, in the swarm joined."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from node.errors import ConfigError, OperationError
from node.node import Node
from node.operations.arguments import boolean
from node.swarm.credentials import read_stored
from node.swarm.joining import join_swarm, joined_facts, read_pasted

MAX_PASTED_CHARACTERS = 16384


def join(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Enter the swarm of the invitation in `line`, from the next start on; with `replace`, leave another swarm.

    Returns swarm, open, left (the swarm left, or null), addrs and models. `restart` makes it take effect.
    """
    line = arguments.get("line")
    if not isinstance(line, str) or len(line) > MAX_PASTED_CHARACTERS:
        raise OperationError(f"`line` is not an invitation of at most {MAX_PASTED_CHARACTERS} characters")
    invitation = read_pasted(line, time.time())
    folder = node.config.state
    stored = None if folder is None else read_stored(folder)
    if folder is None or node.on_restart is None or stored is None or stored.key != node.config.swarm_key:
        raise ConfigError(
            "this node's swarm was given when it was started (--swarm-key, --open or KEKAHYDE_SWARM_KEY): "
            "start it without that, then join"
        )
    replace = boolean(arguments, "replace") if "replace" in arguments else False
    return joined_facts(join_swarm(folder, invitation, replace, node.peer_id), invitation)


def restart(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """End all work and start again, with the same process, identity and address. Answers that run end."""
    if node.on_restart is None:
        raise OperationError("this node cannot start itself again: stop it and start it")
    node.on_restart()
    return {"restarting": True}
