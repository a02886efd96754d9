"""The devices that this one is paired with, as they are kept, and every signature in it checked when it is read.

<data dir>/paired.json   {"operator": hex, "devices": [...], "revoked": [{"peer_id", "pairing"}]}

A file that does not check is an error and never half believed: who may read prompts stands in it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from node.errors import ConfigError, KekahydeError
from node.swarm.memory import replace_file
from protocol.errors import RemoteProtocolError
from protocol.identity import Identity, PeerId, peer_id_of, public_key_of
from protocol.limits import HASH_BYTES, OPERATOR_BYTES
from protocol.pairing import common_operator
from protocol.pairing_code import Certificate, sign_consent, verify_consent
from protocol.pairing_messages import SIGNATURE_BYTES

FILE_NAME = "paired.json"
MAX_DEVICES = 64
MAX_REVOKED = 256
MAX_FILE_BYTES = 1 << 20


class NotPairedError(KekahydeError):
    """No such device is paired with this one."""


@dataclass(frozen=True, slots=True)
class PairedDevice:
    """A device of the same owner."""

    peer_id: PeerId
    certificate: Certificate
    paired_at: int
    """Unix seconds."""
    consent: bytes | None = None
    """This device's own signature that the other one may read prompts."""

    @property
    def may_read_prompts(self) -> bool:
        return self.consent is not None


@dataclass(frozen=True, slots=True)
class Revocation:
    """A pairing that was taken back here, and of which the other side may not have heard yet."""

    peer_id: PeerId
    pairing: bytes


@dataclass(frozen=True, slots=True)
class _State:
    """Everything that is in the file."""

    operator: bytes = bytes(OPERATOR_BYTES)
    devices: tuple[PairedDevice, ...] = ()
    revoked: tuple[Revocation, ...] = ()


class PairedDevices:
    """Thread-safe; every change is on the disk when it returns. `folder` None keeps it in memory."""

    def __init__(self, identity: Identity, folder: Path | None = None) -> None:
        """Raises ConfigError for a file that cannot be read or does not check."""
        self._identity = identity
        self._path = None if folder is None else folder / FILE_NAME
        self._lock = threading.Lock()
        self._state = _State() if self._path is None else _read(self._path, identity)

    # --- what is known

    @property
    def operator(self) -> bytes:
        """Under which the owner's devices go; zeros where this one was never paired."""
        return self._state.operator

    def devices(self) -> tuple[PairedDevice, ...]:
        return self._state.devices

    def revoked(self) -> tuple[Revocation, ...]:
        """Pairings whose end the other side has not answered."""
        return self._state.revoked

    def get(self, peer_id: str) -> PairedDevice | None:
        return next((device for device in self._state.devices if device.peer_id == peer_id), None)

    def __contains__(self, peer_id: object) -> bool:
        return any(device.peer_id == peer_id for device in self._state.devices)

    @property
    def peer_ids(self) -> frozenset[PeerId]:
        return frozenset(device.peer_id for device in self._state.devices)

    @property
    def readers(self) -> frozenset[PeerId]:
        """Devices that may read prompts, by their user's word."""
        return frozenset(device.peer_id for device in self._state.devices if device.may_read_prompts)

    # --- what changes

    def add(
        self, peer_id: PeerId, certificate: Certificate, operator: bytes, now_s: float, reads: bool = False
    ) -> None:
        """A device was paired (again); `reads` is the user's word. Raises ConfigError where there are too many."""

        def change(state: _State) -> _State:
            others = tuple(device for device in state.devices if device.peer_id != peer_id)
            if len(others) >= MAX_DEVICES:
                raise ConfigError(f"{MAX_DEVICES} devices are paired already: `unpair` one that you no longer use")
            revoked = tuple(entry for entry in state.revoked if entry.peer_id != peer_id)
            consent = self._consent(peer_id, certificate.pairing) if reads else None
            device = PairedDevice(peer_id, certificate, int(now_s), consent)
            return _State(operator, (*others, device), revoked)

        self._change(change)

    def allow_reading(self, peer_id: str, allowed: bool) -> None:
        """The user says whether this device may read prompts. Raises NotPairedError."""
        device = self._known(peer_id)
        consent = self._consent(device.peer_id, device.certificate.pairing) if allowed else None
        changed = replace(device, consent=consent)
        self._change(lambda state: replace(state, devices=tuple(_put(state.devices, changed))))

    def revoke(self, peer_id: str) -> Revocation:
        """The owner takes a pairing back. Raises NotPairedError."""
        device = self._known(peer_id)
        entry = Revocation(device.peer_id, device.certificate.pairing)

        def change(state: _State) -> _State:
            left = _without(state, entry.peer_id, entry.pairing)
            return replace(left, revoked=(*left.revoked, entry)[-MAX_REVOKED:])

        self._change(change)
        return entry

    def forget(self, peer_id: str, pairing: bytes) -> bool:
        """The other side has ended this pairing, or answered that it knows of its end; whether it still stood."""
        stood = any(_is(device, peer_id, pairing) for device in self._state.devices)
        revoked = any(entry.peer_id == peer_id and entry.pairing == pairing for entry in self._state.revoked)
        if stood or revoked:
            self._change(lambda state: _without(state, peer_id, pairing))
        return stood

    def adopt(self, peer_id: str, operator: bytes) -> bool:
        """A paired device announces this operator; whether this device now goes under another one than before."""
        if peer_id not in self or common_operator(self.operator, operator) == self.operator:
            return False
        self._change(lambda state: replace(state, operator=common_operator(state.operator, operator)))
        return True

    def _consent(self, peer_id: PeerId, pairing: bytes) -> bytes:
        return sign_consent(self._identity, pairing, public_key_of(peer_id))

    def _known(self, peer_id: str) -> PairedDevice:
        device = self.get(peer_id)
        if device is None:
            raise NotPairedError(f"{peer_id} is not paired with this device: see `kekahyde-node pair --list`")
        return device

    def _change(self, change: Callable[[_State], _State]) -> None:
        with self._lock:
            changed = change(self._state)
            if self._path is not None:
                replace_file(self._path, (json.dumps(_as_json(changed), indent=1) + "\n").encode())
            self._state = changed


def _is(device: PairedDevice, peer_id: str, pairing: bytes) -> bool:
    return device.peer_id == peer_id and device.certificate.pairing == pairing


def _put(devices: tuple[PairedDevice, ...], changed: PairedDevice) -> list[PairedDevice]:
    return [changed if _is(device, changed.peer_id, changed.certificate.pairing) else device for device in devices]


def _without(state: _State, peer_id: str, pairing: bytes) -> _State:
    gone = (peer_id, pairing)
    return replace(
        state,
        devices=tuple(device for device in state.devices if not _is(device, peer_id, pairing)),
        revoked=tuple(entry for entry in state.revoked if (entry.peer_id, entry.pairing) != gone),
    )


# --- the file


def _as_json(state: _State) -> dict[str, Any]:
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


def _read(path: Path, identity: Identity) -> _State:
    advice = "restore it from a backup, or remove it and pair the devices again"
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"it has more than {MAX_FILE_BYTES} bytes")
        return _state_of(json.loads(content), identity)
    except FileNotFoundError:
        return _State()
    except OSError as exc:
        raise ConfigError(f"cannot read the paired devices {path}: {exc.strerror}; {advice}") from exc
    except (ValueError, KeyError, TypeError, AttributeError, RemoteProtocolError) as exc:
        what = str(exc) if isinstance(exc, ValueError | RemoteProtocolError) else f"it lacks something ({exc!r})"
        raise ConfigError(f"the paired devices {path} cannot be trusted: {what}; {advice}") from exc


def _state_of(value: dict[str, Any], identity: Identity) -> _State:
    devices = tuple(_device_of(entry, identity) for entry in value["devices"][:MAX_DEVICES])
    if len({device.peer_id for device in devices}) != len(value["devices"]):
        raise ValueError(f"it names a device twice, or more than {MAX_DEVICES}")
    revoked = tuple(
        Revocation(peer_id_of(public_key_of(entry["peer_id"])), _bytes(entry["pairing"], HASH_BYTES))
        for entry in value["revoked"][:MAX_REVOKED]
    )
    return _State(_bytes(value["operator"], OPERATOR_BYTES), devices, revoked)


def _device_of(value: dict[str, Any], identity: Identity) -> PairedDevice:
    """A device whose two signatures, and the consent if there is one, were checked."""
    own, peer = identity.public_key, public_key_of(value["peer_id"])
    keys = {peer_id_of(own): (own, peer), peer_id_of(peer): (peer, own)}
    asker, answerer = keys[value["asked_by"]]
    signatures = (_bytes(value[name], SIGNATURE_BYTES) for name in ("asker_signature", "answerer_signature"))
    certificate = Certificate(_bytes(value["pairing"], HASH_BYTES), asker, answerer, *signatures)
    certificate.verify()
    consent = value["may_read_prompts"]
    if consent is not None:
        consent = _bytes(consent, SIGNATURE_BYTES)
        verify_consent(own, certificate.pairing, peer, consent)
    return PairedDevice(peer_id_of(peer), certificate, int(value["paired_at"]), consent)


def _bytes(text: str, length: int) -> bytes:
    value = bytes.fromhex(text)
    if len(value) != length:
        raise ValueError(f"it holds {len(value)} bytes where {length} belong")
    return value
