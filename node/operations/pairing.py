"""Pairing with a device of the same owner, as management operations (SPEC.md section 15)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import asdict

from node.errors import AddressError, KekahydeError
from node.node import Node
from node.operations.named_peer import peer_named
from node.trust.desk import PairingError
from node.trust.paired_file import PairedDevice
from protocol.identity import PeerId, peer_id_of, public_key_of
from protocol.multiaddr import parse_multiaddr

CONNECT_TIMEOUT_S = 10.0


def pair_start(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Ask a peer (PeerID or address) to pair, or answer it if it has already asked; returns the attempt."""
    named = _text(arguments, "peer")
    peer_id = _dial(node, named) if named.startswith("/") else _peer(node, arguments)
    return asdict(node.trust.start_pairing(peer_id))


def pair_list(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Attempts with their codes, and the paired devices."""
    return {
        "attempts": [asdict(view) for view in node.trust.attempts()],
        "devices": [
            device_as_json(device)
            | {"name": node.name_of(device.peer_id), "connected": device.peer_id in _connected(node)}
            for device in node.trust.devices.devices()
        ],
    }


def pair_confirm(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The owner saw this code on both screens; returns the attempt."""
    code = "".join(_text(arguments, "code").split())
    reads = arguments.get("may_read_prompts", False) is True
    return asdict(node.trust.confirm(_peer(node, arguments), code, reads))


def pair_refuse(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The owner says no; `mismatch`: because the screens show different codes."""
    return asdict(node.trust.refuse(_peer(node, arguments), arguments.get("mismatch", False) is True))


def pair_consent(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Set whether a paired device may read prompts."""
    allowed = arguments.get("may_read_prompts")
    if not isinstance(allowed, bool):
        raise PairingError("say with `may_read_prompts` whether it may: true or false")
    peer_id = _peer(node, arguments)
    node.trust.devices.allow_reading(peer_id, allowed)
    return {"peer_id": peer_id, "may_read_prompts": allowed}


def unpair(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """End a pairing on both sides."""
    peer_id = _peer(node, arguments)
    node.trust.unpair(peer_id)
    return {"peer_id": peer_id}


def device_as_json(device: PairedDevice) -> dict[str, Any]:
    """A paired device, as interfaces show it."""
    return {
        "peer_id": device.peer_id,
        "paired_at": device.paired_at,
        "may_read_prompts": device.may_read_prompts,
    }


def _dial(node: Node, text: str) -> PeerId:
    """The peer at an address, once there is a link to it."""
    try:
        address = parse_multiaddr(text)
    except AddressError as exc:
        raise PairingError(str(exc)) from exc
    if address.peer_id is None or not address.port:
        raise PairingError(f"{text} lacks a port or /p2p/PEERID: give the whole address that the other node printed")
    node.control.dial(address)
    if not node.registry.wait_up(address.peer_id, CONNECT_TIMEOUT_S):
        raise PairingError(
            f"no link to {text} within {CONNECT_TIMEOUT_S:g} s: check that that node runs and is in the same swarm "
            "(`kekahyde-node invite` on one, `kekahyde-node join` on the other)"
        )
    return address.peer_id


def _connected(node: Node) -> set[PeerId]:
    return {peer.peer_id for peer in node.registry.peers()}


def _peer(node: Node, arguments: Mapping[str, Any]) -> PeerId:
    try:
        return peer_id_of(public_key_of(peer_named(node, _text(arguments, "peer"))))
    except KekahydeError as exc:
        raise PairingError(str(exc)) from exc


def _text(arguments: Mapping[str, Any], name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not value or len(value) > 256:
        raise PairingError(f"`{name}` is missing")
    return value
