"""The devices that this one is paired with. Every change is written to the disk.

<data dir>/paired.json   see `node.trust.paired_file`
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from node.errors import ConfigError, KekahydeError
from node.store.files import replace_private
from node.trust.paired_file import (
    MAX_DEVICES,
    MAX_REVOKED,
    PairedDevice,
    PairedState,
    Revocation,
    paired_as_json,
    read_paired,
)
from protocol.identity import Identity, PeerId, public_key_of
from protocol.pairing.code import Certificate, sign_consent
from protocol.pairing.pairing import common_operator

FILE_NAME = "paired.json"


class NotPairedError(KekahydeError):
    """No such device is paired with this one."""


class PairedDevices:
    """Thread-safe; every change is on the disk when it returns. `folder` None keeps it in memory."""

    def __init__(self, identity: Identity, folder: Path | None = None) -> None:
        """Raises ConfigError for a file that cannot be read or does not check."""
        self._identity = identity
        self._path = None if folder is None else folder / FILE_NAME
        self._lock = threading.Lock()
        self._state = PairedState() if self._path is None else read_paired(self._path, identity)

    # --- what is known

    @property
    def operator(self) -> bytes:
        """The operator that the owner's devices share; zeros where this device was never paired."""
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
        """Devices that may read prompts, by the user's consent."""
        return frozenset(device.peer_id for device in self._state.devices if device.may_read_prompts)

    @property
    def readers_for_auto(self) -> frozenset[PeerId]:
        """Those of them that `auto` may choose."""
        reading = (device for device in self._state.devices if device.may_read_prompts and device.reads_for_auto)
        return frozenset(device.peer_id for device in reading)

    # --- what changes

    def add(
        self, peer_id: PeerId, certificate: Certificate, operator: bytes, now_s: float, reads: bool = False
    ) -> None:
        """A device was paired (again); `reads` is the user's word. Raises ConfigError where there are too many."""

        def change(state: PairedState) -> PairedState:
            others = tuple(device for device in state.devices if device.peer_id != peer_id)
            if len(others) >= MAX_DEVICES:
                raise ConfigError(f"{MAX_DEVICES} devices are paired already: `unpair` one that you no longer use")
            revoked = tuple(entry for entry in state.revoked if entry.peer_id != peer_id)
            consent = self._consent(peer_id, certificate.pairing) if reads else None
            device = PairedDevice(peer_id, certificate, int(now_s), consent)
            return PairedState(operator, (*others, device), revoked)

        self._change(change)

    def allow_reading(self, peer_id: str, allowed: bool) -> None:
        """The user says whether this device may read prompts. Raises NotPairedError."""
        device = self._known(peer_id)
        consent = self._consent(device.peer_id, device.certificate.pairing) if allowed else None
        changed = replace(device, consent=consent, reads_for_auto=True)
        self._change(lambda state: replace(state, devices=tuple(_put(state.devices, changed))))

    def revoke(self, peer_id: str) -> Revocation:
        """The owner takes a pairing back. Raises NotPairedError."""
        device = self._known(peer_id)
        entry = Revocation(device.peer_id, device.certificate.pairing)

        def change(state: PairedState) -> PairedState:
            left = _without(state, entry.peer_id, entry.pairing)
            return replace(left, revoked=(*left.revoked, entry)[-MAX_REVOKED:])

        self._change(change)
        return entry

    def forget(self, peer_id: str, pairing: bytes) -> bool:
        """The other side has ended this pairing, or answered that it knows of the end; returns whether the pairing
        still stood."""
        stood = any(_is(device, peer_id, pairing) for device in self._state.devices)
        revoked = any(entry.peer_id == peer_id and entry.pairing == pairing for entry in self._state.revoked)
        if stood or revoked:
            self._change(lambda state: _without(state, peer_id, pairing))
        return stood

    def adopt(self, peer_id: str, operator: bytes) -> bool:
        """A paired device announces this operator; returns whether this device's operator changes by that."""
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

    def _change(self, change: Callable[[PairedState], PairedState]) -> None:
        with self._lock:
            changed = change(self._state)
            if self._path is not None:
                replace_private(self._path, (json.dumps(paired_as_json(changed), indent=1) + "\n").encode())
            self._state = changed


def _is(device: PairedDevice, peer_id: str, pairing: bytes) -> bool:
    return device.peer_id == peer_id and device.certificate.pairing == pairing


def _put(devices: tuple[PairedDevice, ...], changed: PairedDevice) -> list[PairedDevice]:
    return [changed if _is(device, changed.peer_id, changed.certificate.pairing) else device for device in devices]


def _without(state: PairedState, peer_id: str, pairing: bytes) -> PairedState:
    gone = (peer_id, pairing)
    return replace(
        state,
        devices=tuple(device for device in state.devices if not _is(device, peer_id, pairing)),
        revoked=tuple(entry for entry in state.revoked if (entry.peer_id, entry.pairing) != gone),
    )
