"""What `join` does to a data directory: it sets its swarm, from the next start on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from node.errors import ConfigError
from node.swarm.credentials import KnownModel, Swarm, read_stored, store_swarm
from protocol.finding.invitation import Invitation, InvitationError, parse_invitation
from protocol.identity import PeerId
from protocol.limits import MAX_ADDRESSES
from protocol.link.admission import SwarmKey

_LINE = re.compile(r"kekahyde:[0-9]{1,4}:[A-Za-z0-9_-]+")


def read_pasted(text: str, now_unix_s: float) -> Invitation:
    """The invitation in a text that somebody pasted: the line itself, the whole `kekahyde-node join` command, or a
    line that a mail has broken into several. Its checksum says whether the line is whole.

    Raises:
        InvitationError: there is none, or it is damaged, of another version, or too old.
    """
    unbroken = _LINE.search("".join(text.split()))
    alone = _LINE.search(text)
    try:
        return parse_invitation(unbroken.group() if unbroken else text, now_unix_s)
    except InvitationError:
        if alone is None or (unbroken is not None and alone.group() == unbroken.group()):
            raise
        return parse_invitation(alone.group(), now_unix_s)  # words follow the line


class Joined(Struct, frozen=True):
    """The result of joining."""

    swarm: Swarm
    left: str | None
    """Name of the swarm that the directory left; None if it was in no swarm, or in this one."""


def join_swarm(folder: Path, invitation: Invitation, may_replace: bool, me: PeerId | None = None) -> Joined:
    """Enter the swarm of an invitation. Raises ConfigError if another swarm would be lost and `may_replace` is false,
    or if this device made the invitation.

    A key that the directory's first start made may be lost, if nobody was invited with it and no member was met.

    Args:
        me: this device.
    """
    addresses = tuple(address for address in invitation.addresses if address.peer_id != me)
    if invitation.addresses and not addresses:
        raise ConfigError("this device made this invitation: join with it on another device")
    stored = read_stored(folder)
    key = None if invitation.swarm_key is None else SwarmKey(invitation.swarm_key)
    models = tuple(KnownModel(model.name, model.model_id) for model in invitation.models)
    invited = Swarm(key, addresses, models)
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
    # Records of the other swarm are useless here; bans, paired devices and the identity stay.
    (folder / "anchors").unlink(missing_ok=True)
    return Joined(invited, None if alone else stored.name)


def joined_facts(joined: Joined, invitation: Invitation) -> dict[str, Any]:
    """What interfaces say about it: swarm, open, left, addrs, models."""
    return {
        "swarm": joined.swarm.name,
        "open": invitation.swarm_key is None,
        "left": joined.left,
        "addrs": [str(address) for address in invitation.addresses],
        "models": [{"name": model.name, "model_id": model.model_id.hex()} for model in invitation.models],
    }


def _merged(stored: Swarm, invited: Swarm) -> Swarm:
    """The same swarm, with newer addresses first and the models of both."""
    addresses = tuple(dict.fromkeys([*invited.bootstrap, *stored.bootstrap]))[:MAX_ADDRESSES]
    models = {model.model_id: model for model in (*stored.models, *invited.models)}
    return replace(stored, bootstrap=addresses, models=tuple(models.values()))


def _loss(folder: Path, stored: Swarm, invited: Swarm) -> str:
    what = "its addresses" if stored.is_open else "its key"
    return (
        f"{folder} is in the swarm {stored.name} and would lose {what} by joining {invited.name}: "
        "give --replace to do that (without a copy of swarm.key, you need an invitation to come back), "
        "or join with another --data-dir"
    )
