"""`pull`, `pull_cancel` and `transfers`: fetch models from peers or from the hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.errors import ConfigError
from node.hub.reference import parse_reference
from node.node import Node
from node.operations.arguments import boolean, choice
from node.planning.placement import Lend, kinds_not_kept
from node.store.names import check_name, is_model_id


def pull(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Begin to fetch `model`: ORG/NAME[@REVISION] of the hub, or a model id from peers; with `thin`, without the
    weights of what `lend` names (auto: all); `name` is what the user calls it. Returns a TRANSFER."""
    model = arguments.get("model")
    if not isinstance(model, str):
        raise ConfigError("pull needs `model`: ORG/NAME of the Hugging Face hub, or a model id that peers have")
    thin = boolean(arguments, "thin") if "thin" in arguments else False
    lend = choice(arguments, "lend", Lend) if "lend" in arguments else Lend.AUTO
    name = arguments.get("name")
    if name is not None:
        name = check_name(str(name))
    if is_model_id(model):
        return node.transfers.pull(model, kinds_not_kept(thin, lend), name=name).as_json()
    if thin:
        raise ConfigError("a running node pulls thin models only from peers: stop it, then pull from the hub")
    return node.transfers.pull_from_hub(parse_reference(model), name).as_json()


def pull_cancel(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Stop the transfer `transfer`; what has come is kept. Returns a TRANSFER."""
    return node.transfers.cancel(str(arguments.get("transfer", ""))).as_json()


def transfers(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """All transfers of the node, including those that ended recently."""
    return {"transfers": node.transfers.as_json()}
