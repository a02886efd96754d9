"""Which models a start uses: those that are here, and those to fetch from peers.

The id of a model that is not here comes from the user or from an invitation, never from what peers announce.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from node.cli.narrate import say
from node.cli.options import NO_MODEL
from node.errors import KekahydeError
from node.process.allowance import available_memory
from node.store.library import Library
from node.store.names import is_model_id
from node.store.stored import StoredModel
from node.swarm.credentials import Swarm

LENT_SHARE = 0.5
"""Part of the memory that this process may still take when the node starts."""


def lendable_bytes() -> int:
    """Memory that a node gives to layers fetched from peers, unless an option says otherwise."""
    return int(available_memory() * LENT_SHARE)


def meant(library: Library, model: str, swarm: Swarm) -> str:
    """The value of `--model`. A name from an invitation is replaced by the id, unless a model here has that name."""
    invited = {known.name: known.model_id.hex() for known in swarm.models}
    return model if model in library.names() else invited.get(model, model)


class WantedModels(Struct, frozen=True):
    """The models that a node is started with."""

    whole: list[StoredModel]
    """Models to serve."""
    absent: Sequence[str]
    """Ids of models that are not here."""
    default: str | None
    """The model for a prompt that names none; None if there is none."""


def wanted_models(library: Library, model: str, swarm: Swarm, published: Sequence[str] = ()) -> WantedModels:
    """Models to open, and ids of models that are not here, from `--model` and from the invitation.

    Args:
        published: ids of models that the swarm is asked to hold; those that are not here any more are left out.

    Raises:
        ModelError: `--model` names no model that is here or that the user gave the id of.
    """
    model = meant(library, model, swarm)
    model_id = absent_id(library, model)
    asked = [] if model == NO_MODEL or model_id is not None else [library.resolve(model)]
    ids = [*([] if model_id is None else [model_id]), *(known.model_id.hex() for known in swarm.models)]
    absent = list(dict.fromkeys(known for known in ids if not library.has(known)))
    opened = {stored.model_id for stored in asked}
    asked += [library.open(known) for known in dict.fromkeys(ids) if known not in {*absent, *opened}]
    others = [known for known in published if known not in {*ids, *opened} and library.has(known)]
    asked += _usable(library, others)
    default = asked[0].model_id if asked else next(iter(ids), None)
    return WantedModels([stored for stored in asked if stored.is_whole], absent, default)


def _usable(library: Library, model_ids: Sequence[str]) -> list[StoredModel]:
    """Published models that are intact: nobody asked for them in this start, so a damaged one does not end it."""
    usable = []
    for model_id in model_ids:
        try:
            model = library.open(model_id)
            for ref in model.units:
                model.unit(ref.layer, ref.kind)
        except KekahydeError as exc:
            say(f"note: model {model_id[:16]} is not on the swarm: {exc}")
        else:
            usable.append(model)
    return usable


def absent_id(library: Library, model: str) -> str | None:
    """`model`, if it is the id of a model that is not here; None otherwise."""
    return model if is_model_id(model) and not library.has(model) else None
