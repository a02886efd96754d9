"""`publish`: put a model of this device on the swarm, so that members hold parts of it; `unpublish`: take it off;
`pads`: for how many tokens of which models pads are ready."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.errors import ConfigError, OperationError
from node.node import Node
from node.operations.arguments import boolean
from node.store.library import BUILT_IN_NAME, Library
from node.store.stored import StoredModel


def publish(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Publish `model`, a name or an id, which is then served too. With `automatic`, an open swarm is not told.

    Returns `model_id`, `name`, `published` (whether the swarm is told now), and `ended`: ids of models that are not
    published any longer, because a record names only so many.
    """
    by_hand = not (boolean(arguments, "automatic") if "automatic" in arguments else False)
    model = _opened(node, arguments)
    ended = node.published.add(model.model_id, by_hand)
    if by_hand or not node.is_open:
        hold(node, model)
    node.announce()
    told = node.published.ids(node.is_open)
    return {
        "model_id": model.model_id,
        "name": model.name,
        "published": model.model_id in told,
        "ended": [model_id for model_id in ended if model_id != model.model_id],
    }


def unpublish(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Publish `model` no longer: members drop their parts of it. It stays here. Returns `model_id`."""
    model_id = _library(node).identify(_named(arguments))
    if not node.published.remove(model_id):
        raise ConfigError(f"{_named(arguments)} is not published")
    node.announce()
    return {"model_id": model_id}


def pads(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """By id of a model, for how many tokens of `strict` this device has pads ready; models without any are left
    out."""
    return {"rows": {model_id.hex(): rows for model_id, rows in node.pads.ready.items() if rows}}


def hold(node: Node, model: StoredModel) -> None:
    """Serve a whole model from now on, if it is not served yet."""
    if all(held.model_id != model.model_id for held in node.hosted.models):
        for ref in model.units:  # map and check them in this thread, not in the one that answers chunks
            model.unit(ref.layer, ref.kind)
        node.hosted.hold(model, model.units)


def _opened(node: Node, arguments: Mapping[str, Any]) -> StoredModel:
    model = next((model for model in node.hosted.models if _named(arguments) in (model.name, model.model_id)), None)
    model = model or _stored(_library(node), _named(arguments))
    if not model.is_whole:
        raise ConfigError(
            f"{model.name} is thin here: only a device that holds all of a model can publish it; "
            f"`kekahyde-node pull {model.model_id}` fetches the rest"
        )
    return model


def _stored(library: Library, named: str) -> StoredModel:
    """The model of this name or id; never a path, which `resolve` would import."""
    return library.resolve(named) if named == BUILT_IN_NAME else library.open(library.identify(named))


def _named(arguments: Mapping[str, Any]) -> str:
    model = arguments.get("model")
    if not isinstance(model, str) or not model or "/" in model:
        raise OperationError(
            "`model` is the name or the id of a model of this device: `kekahyde-node models` lists them"
        )
    return model


def _library(node: Node) -> Library:
    if node.config.models_dir is None:
        raise ConfigError("this node has no data directory with models: give one with --data-dir")
    return Library(node.config.models_dir)
