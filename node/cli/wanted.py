"""Which models a start means: those that are here, and those that peers are to bring.

The id of a model that is not here comes from the user or from an invitation, never from what peers announce.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from node.cli.options import NO_MODEL
from node.process.allowance import available_memory
from node.store.library import Library
from node.store.names import is_model_id
from node.store.stored import StoredModel
from node.swarm.credentials import Swarm

LENT_SHARE = 0.5
"""Of the memory that this process may still take when the node starts."""


def lendable_bytes() -> int:
    """Memory that a node lends to layers of others' models unless it is told."""
    return int(available_memory() * LENT_SHARE)


def meant(library: Library, model: str, swarm: Swarm) -> str:
    """What `--model` says, an invitation's name for a model replaced by the id, where nothing here is called so."""
    invited = {known.name: known.model_id.hex() for known in swarm.models}
    return model if model in library.names() else invited.get(model, model)


class WantedModels(Struct, frozen=True):
    """What a node is started for."""

    whole: list[StoredModel]
    """Models to serve."""
    absent: Sequence[str]
    """Ids of models that are not here."""
    default: str | None
    """The model that a prompt means which names none; None where there is none."""


def wanted_models(library: Library, model: str, swarm: Swarm) -> WantedModels:
    """Models to open, and ids of models that are not here: what `--model` says, and what the invitation named.

    Raises:
        ModelError: `--model` means nothing that is here or that the user vouched for.
    """
    model = meant(library, model, swarm)
    model_id = absent_id(library, model)
    asked = [] if model == NO_MODEL or model_id is not None else [library.resolve(model)]
    ids = [*([] if model_id is None else [model_id]), *(known.model_id.hex() for known in swarm.models)]
    absent = list(dict.fromkeys(known for known in ids if not library.has(known)))
    opened = {stored.model_id for stored in asked}
    asked += [library.open(known) for known in dict.fromkeys(ids) if known not in {*absent, *opened}]
    default = asked[0].model_id if asked else next(iter(ids), None)
    return WantedModels([stored for stored in asked if stored.is_whole], absent, default)


def absent_id(library: Library, model: str) -> str | None:
    """The id that `model` is, where it is that of a model which is not here; None for anything else."""
    return model if is_model_id(model) and not library.has(model) else None
