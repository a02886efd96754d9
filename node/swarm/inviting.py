"""What an invitation to this node's swarm says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from node.discovery.addresses import is_loopback
from node.errors import ConfigError
from node.swarm.credentials import Swarm, read_stored, store_swarm
from protocol.finding.invitation import Invitation, InvitedModel, format_invitation
from protocol.limits import MAX_ADDRESSES
from protocol.link.admission import SwarmKey
from protocol.multiaddr import Multiaddr

MAX_EXPIRY_S = 366 * 24 * 3600.0
DEFAULT_EXPIRY_S = 24 * 3600.0
MAX_OWN_ADDRESSES = 5
"""Of an invitation's addresses: the others lead to other members, in case this node is off."""


@dataclass(frozen=True, slots=True)
class Written:
    """An invitation as its line, and what whoever hands it over should know."""

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
    """Raises ConfigError where there is no address to name."""
    addresses = _chosen(own, list(others))
    if not addresses:
        raise ConfigError(
            "an invitation needs an address, and none is known: start the node on an address that others can dial, "
            "such as --listen /ip4/0.0.0.0/tcp/4711, and invite while it runs"
        )
    invitation = Invitation(addresses, expires_unix_s, None if key is None else key.secret, tuple(models))
    return Written(format_invitation(invitation), invitation, _note(addresses, own))


def key_is_shared(folder: Path, key: SwarmKey | None) -> None:
    """Somebody may come in by this key from now on: `join` no longer replaces it unasked."""
    stored = read_stored(folder)
    if stored is not None and stored.own_key and stored.key == key:
        store_swarm(folder, replace(stored, own_key=False))


def offline_swarm(folder: Path) -> Swarm:
    """The swarm of a directory on which no node runs. Raises ConfigError where it has none yet."""
    stored = read_stored(folder)
    if stored is None:
        raise ConfigError(f"{folder} is in no swarm yet: start a node on it, which makes one, or `join` one first")
    return stored


def _chosen(own: Sequence[Multiaddr], others: Sequence[Multiaddr]) -> tuple[Multiaddr, ...]:
    """Own addresses that lead here from elsewhere, then other members'; loopback only where there is nothing else."""
    outside = [address for address in own if not is_loopback(address)][:MAX_OWN_ADDRESSES]
    found = [*outside, *(address for address in others if not is_loopback(address))]
    return tuple(dict.fromkeys(found or [*own, *others]))[:MAX_ADDRESSES]


def _note(addresses: Sequence[Multiaddr], own: Sequence[Multiaddr]) -> str | None:
    if all(is_loopback(address) for address in addresses):
        return (
            "this invitation works on this device only, since the node listens on loopback; "
            "start it with --listen /ip4/0.0.0.0/tcp/4711 to invite other devices"
        )
    if not any(address in own for address in addresses):
        return "this invitation leads to other members, since nobody can dial this node"
    return None
