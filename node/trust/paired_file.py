"""The form of the file of paired devices. Every signature in it is checked when it is read.

    {"operator": hex, "devices": [...], "revoked": [{"peer_id", "pairing"}]}

A file that fails a check is an error and no part of it is believed: it says who may read prompts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from msgspec import Struct

from node.errors import ConfigError
from protocol.errors import RemoteProtocolError
from protocol.identity import Identity, PeerId, peer_id_of, public_key_of
from protocol.limits import HASH_BYTES, OPERATOR_BYTES
from protocol.pairing.code import Certificate, verify_consent
from protocol.pairing.messages import SIGNATURE_BYTES

MAX_DEVICES = 64
MAX_REVOKED = 256
MAX_FILE_BYTES = 1 << 20
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


class PairedDevice(Struct, frozen=True):
    """A device of the same owner."""

    peer_id: PeerId
    certificate: Certificate
    paired_at: int
    """Unix seconds."""
    consent: bytes | None = None
    """This device's own signature that the other one may read prompts."""
    reads_for_auto: bool = True
    """Whether the consent, if there is one, holds for `auto` too."""

    @property
    def may_read_prompts(self) -> bool:
        return self.consent is not None


class Revocation(Struct, frozen=True):
    """A pairing that was taken back here; the other side may not have heard of it yet."""

    peer_id: PeerId
    pairing: bytes


class PairedState(Struct, frozen=True):
    """Everything that is in the file."""

    operator: bytes = bytes(OPERATOR_BYTES)
    devices: tuple[PairedDevice, ...] = ()
    revoked: tuple[Revocation, ...] = ()


def paired_as_json(state: PairedState) -> dict[str, Any]:
    return {
        "operator": state.operator.hex(),
        "devices": [_device_as_json(device) for device in state.devices],
        "revoked": [{"peer_id": entry.peer_id, "pairing": entry.pairing.hex()} for entry in state.revoked],
    }


def _device_as_json(device: PairedDevice) -> dict[str, Any]:
    certificate = device.certificate
    return {
        "peer_id": device.peer_id,
        "paired_at": device.paired_at,
        "pairing": certificate.pairing.hex(),
        "asked_by": peer_id_of(certificate.asker),
        "asker_signature": certificate.asker_signature.hex(),
        "answerer_signature": certificate.answerer_signature.hex(),
        "may_read_prompts": None if device.consent is None else device.consent.hex(),
    }


def read_paired(path: Path, identity: Identity) -> PairedState:
    advice = "restore it from a backup, or remove it and pair the devices again"
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"it has more than {MAX_FILE_BYTES} bytes")
        return _state_of(json.loads(content), identity)
    except FileNotFoundError:
        return PairedState()
    except OSError as exc:
        raise ConfigError(f"cannot read the paired devices {path}: {exc.strerror}; {advice}") from exc
    except (*_DAMAGED, RemoteProtocolError) as exc:
        what = str(exc) if isinstance(exc, ValueError | RemoteProtocolError) else "it is damaged"
        raise ConfigError(f"the paired devices {path} cannot be trusted: {what}; {advice}") from exc


def _state_of(value: dict[str, Any], identity: Identity) -> PairedState:
    devices = tuple(_device_of(entry, identity) for entry in value["devices"][:MAX_DEVICES])
    if len({device.peer_id for device in devices}) != len(value["devices"]):
        raise ValueError(f"it names a device twice, or more than {MAX_DEVICES}")
    revoked = tuple(
        Revocation(peer_id_of(public_key_of(entry["peer_id"])), _bytes(entry["pairing"], HASH_BYTES))
        for entry in value["revoked"][:MAX_REVOKED]
    )
    return PairedState(_bytes(value["operator"], OPERATOR_BYTES), devices, revoked)


def _device_of(value: dict[str, Any], identity: Identity) -> PairedDevice:
    """A device whose two signatures, and the consent if there is one, were checked."""
    own, peer = identity.public_key, public_key_of(value["peer_id"])
    keys = {peer_id_of(own): (own, peer), peer_id_of(peer): (peer, own)}
    asker, answerer = keys[value["asked_by"]]
    signatures = (_bytes(value[name], SIGNATURE_BYTES) for name in ("asker_signature", "answerer_signature"))
    certificate = Certificate(_bytes(value["pairing"], HASH_BYTES), asker, answerer, *signatures)
    certificate.verify()
    consent, for_auto = value["may_read_prompts"], True
    if consent is not None:
        consent = _bytes(consent, SIGNATURE_BYTES)
        for_auto = verify_consent(own, certificate.pairing, peer, consent)
    return PairedDevice(peer_id_of(peer), certificate, int(value["paired_at"]), consent, for_auto)


def _bytes(text: str, length: int) -> bytes:
    value = bytes.fromhex(text)
    if len(value) != length:
        raise ValueError(f"it holds {len(value)} bytes where {length} belong")
    return value
