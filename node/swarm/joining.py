"""What `join` does to a data directory: which swarm it is in from the next start on."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from node.errors import ConfigError
from node.swarm.credentials import KnownModel, Swarm, read_stored, store_swarm
from protocol.finding.invitation import Invitation
from protocol.limits import MAX_ADDRESSES
from protocol.link.admission import SwarmKey


class Joined(Struct, frozen=True):
    """What became of the directory."""

    swarm: Swarm
    left: str | None
    """Name of the swarm that it was in; None where it was in none, or in this one."""


def join_swarm(folder: Path, invitation: Invitation, may_replace: bool) -> Joined:
    """Enter the swarm of an invitation. Raises ConfigError where another one would be lost unasked.

    A key that the directory's own first start made, and that nobody was invited with or met by, is no loss.
    """
    stored = read_stored(folder)
    key = None if invitation.swarm_key is None else SwarmKey(invitation.swarm_key)
    models = tuple(KnownModel(model.name, model.model_id) for model in invitation.models)
    invited = Swarm(key, invitation.addresses, models)
    if stored is not None and stored.key == key:
        merged = _merged(stored, invited)
        store_swarm(folder, merged)
        return Joined(merged, None)
    if stored is None:
        store_swarm(folder, invited)
        return Joined(invited, None)
    alone = stored.own_key and not stored.bootstrap and not (folder / "anchors").exists()
    if not alone and not may_replace:
        raise ConfigError(_loss(folder, stored, invited))
    store_swarm(folder, invited)
    # Records of the other swarm lead to nobody here; bans, paired devices and the identity stay.
    (folder / "anchors").unlink(missing_ok=True)
    return Joined(invited, None if alone else stored.name)


def _merged(stored: Swarm, invited: Swarm) -> Swarm:
    """The same swarm: newer addresses first, models of both."""
    addresses = tuple(dict.fromkeys([*invited.bootstrap, *stored.bootstrap]))[:MAX_ADDRESSES]
    models = {model.model_id: model for model in (*stored.models, *invited.models)}
    return replace(stored, bootstrap=addresses, models=tuple(models.values()))


def _loss(folder: Path, stored: Swarm, invited: Swarm) -> str:
    what = "the addresses" if stored.is_open else "the key"
    return (
        f"{folder} is in the swarm {stored.name} and would lose {what} of it by joining {invited.name}: "
        "give --replace to do that (without a copy of its swarm.key, only an invitation of a member leads back), "
        "or join with another --data-dir"
    )
