"""Writes invitations to this node's swarm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from node.discovery.addresses import is_loopback
from node.errors import ConfigError
from node.swarm.credentials import Swarm, read_stored, store_swarm
from protocol.finding.invitation import MAX_INVITED_MODELS, Invitation, InvitedModel, format_invitation
from protocol.limits import MAX_ADDRESSES
from protocol.link.admission import SwarmKey
from protocol.multiaddr import Multiaddr

MAX_EXPIRY_S = 366 * 24 * 3600.0
DEFAULT_EXPIRY_S = 24 * 3600.0
OTHERS_ADDRESSES = 3
"""So many of an invitation's addresses lead to other members, if there are any, in case this node is off."""


class Written(Struct, frozen=True):
    """An invitation as its line, and a note for the user who hands it over."""

    line: str
    invitation: Invitation
    note: str | None


def write_invitation(
    key: SwarmKey | None,
    own: Sequence[Multiaddr],
    others: Iterable[Multiaddr],
    models: Sequence[InvitedModel],
    expires_unix_s: int,
) -> Written:
    """Write an invitation. Raises ConfigError if there is no address to name."""
    addresses = _chosen(own, list(others))
    left_out = [address for address in _outside(own) if address not in addresses]
    if not addresses:
        raise ConfigError(
            "an invitation needs an address, and none is known: start the node on an address that others can dial, "
            "such as --listen /ip4/0.0.0.0/tcp/4711, and run `invite` while it runs"
        )
    named = tuple(models[:MAX_INVITED_MODELS])
    invitation = Invitation(addresses, expires_unix_s, None if key is None else key.secret, named)
    notes = [_note(addresses, own), _left_out_note(left_out), _models_note(len(models))]
    return Written(format_invitation(invitation), invitation, "; ".join(filter(None, notes)) or None)


def key_is_shared(folder: Path, key: SwarmKey | None) -> None:
    """Note that others may use this key from now on, so that `join` no longer replaces it without asking."""
    stored = read_stored(folder)
    if stored is not None and stored.own_key and stored.key == key:
        store_swarm(folder, replace(stored, own_key=False))


def offline_swarm(folder: Path) -> Swarm:
    """The swarm of a directory on which no node runs. Raises ConfigError if it has none yet."""
    stored = read_stored(folder)
    if stored is None:
        raise ConfigError(f"{folder} is not in a swarm yet: start a node on it, which creates one, or `join` one")
    return stored


def _chosen(own: Sequence[Multiaddr], others: Sequence[Multiaddr]) -> tuple[Multiaddr, ...]:
    """The addresses to name: first own addresses that others can reach, in the given order (the most useful first),
    then those of other members; loopback only if there is nothing else."""
    own_outside, others_outside = _outside(own), _outside(others)
    room = MAX_ADDRESSES - min(len(others_outside), OTHERS_ADDRESSES)
    found = [*own_outside[:room], *others_outside]
    return tuple(dict.fromkeys(found or [*own, *others]))[:MAX_ADDRESSES]


def _outside(addresses: Sequence[Multiaddr]) -> list[Multiaddr]:
    return [address for address in dict.fromkeys(addresses) if not is_loopback(address)]


def _left_out_note(left_out: Sequence[Multiaddr]) -> str | None:
    if not left_out:
        return None
    hosts = ", ".join(address.host for address in left_out)
    return (
        f"an invitation holds {MAX_ADDRESSES} addresses, so these of this node are left out: {hosts}; "
        "start the node with --announce ADDRESS to put that address first"
    )


def _models_note(number: int) -> str | None:
    if number <= MAX_INVITED_MODELS:
        return None
    return (
        f"it names {MAX_INVITED_MODELS} of {number} models: others can get another one by its id, with "
        "`kekahyde-node pull ID` (`kekahyde-node models` shows the ids)"
    )


def _note(addresses: Sequence[Multiaddr], own: Sequence[Multiaddr]) -> str | None:
    if all(is_loopback(address) for address in addresses):
        return (
            "this invitation works only on this device, since the node listens on loopback; "
            "start it with --listen /ip4/0.0.0.0/tcp/4711 to invite other devices"
        )
    if not any(address in own for address in addresses):
        return "this invitation leads to other members, since nobody can dial this node"
    return None
