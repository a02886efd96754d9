"""The file of paired devices: what is written is read back, and what was tampered with is refused by name."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_parts import identity

from node.errors import ConfigError
from node.trust.paired import FILE_NAME, NotPairedError, PairedDevices
from node.trust.paired_file import MAX_DEVICES
from protocol.identity import Identity, PeerId
from protocol.pairing.code import CERTIFICATE_DOMAIN, Certificate, certified

OWN, OTHER, THIRD = identity(1), identity(2), identity(3)
OPERATOR = bytes(range(16))


def certificate(asker: Identity, answerer: Identity, pairing: bytes = bytes(32)) -> Certificate:
    message = certified(pairing, asker.public_key, answerer.public_key)
    signatures = (device.sign(CERTIFICATE_DOMAIN, message) for device in (asker, answerer))
    return Certificate(pairing, asker.public_key, answerer.public_key, *signatures)


def paired(folder: Path) -> PairedDevices:
    """Two devices: one asked by this one, which may read; one that asked this one, which may not."""
    devices = PairedDevices(OWN, folder)
    devices.add(OTHER.peer_id, certificate(OWN, OTHER), OPERATOR, 1.7e9)
    devices.add(THIRD.peer_id, certificate(THIRD, OWN, bytes([7] * 32)), OPERATOR, 1.7e9)
    devices.allow_reading(OTHER.peer_id, True)
    return devices


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written, read = paired(tmp_path), PairedDevices(OWN, tmp_path)
    assert read.devices() == written.devices() and read.operator == OPERATOR
    assert OTHER.peer_id in read and identity(9).peer_id not in read
    assert read.readers == {OTHER.peer_id} and read.peer_ids == {OTHER.peer_id, THIRD.peer_id}
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_nobody_is_paired_before_the_first_pairing(tmp_path: Path) -> None:
    devices = PairedDevices(OWN, tmp_path)
    assert devices.devices() == () and devices.operator == bytes(16) and not list(tmp_path.iterdir())


def test_pairing_alone_allows_no_reading(tmp_path: Path) -> None:
    devices = paired(tmp_path)
    devices.allow_reading(OTHER.peer_id, False)
    assert PairedDevices(OWN, tmp_path).readers == frozenset()
    devices.allow_reading(OTHER.peer_id, True)
    devices.add(OTHER.peer_id, certificate(OWN, OTHER, bytes([9] * 32)), OPERATOR, 1.8e9)
    assert PairedDevices(OWN, tmp_path).readers == frozenset(), "a new pairing begins without consent"


def test_a_revoked_pairing_is_remembered_until_the_other_side_has_heard(tmp_path: Path) -> None:
    devices = paired(tmp_path)
    entry = devices.revoke(OTHER.peer_id)
    with pytest.raises(NotPairedError):
        devices.revoke(OTHER.peer_id)
    again = PairedDevices(OWN, tmp_path)
    assert OTHER.peer_id not in again and again.revoked() == (entry,)
    assert not again.forget(OTHER.peer_id, entry.pairing), "it did not stand any more"
    assert PairedDevices(OWN, tmp_path).revoked() == ()


def test_a_revocation_of_another_pairing_changes_nothing(tmp_path: Path) -> None:
    devices = paired(tmp_path)
    assert not devices.forget(OTHER.peer_id, bytes([1] * 32))
    assert not devices.forget(identity(9).peer_id, bytes(32))
    assert devices.forget(OTHER.peer_id, bytes(32)) and OTHER.peer_id not in devices


def test_the_smaller_operator_is_adopted_from_paired_devices_alone(tmp_path: Path) -> None:
    devices, smaller = paired(tmp_path), bytes([0] * 15 + [1])
    assert not devices.adopt(identity(9).peer_id, smaller)
    assert not devices.adopt(OTHER.peer_id, bytes(16)), "zeros say none"
    assert not devices.adopt(OTHER.peer_id, bytes([255] * 16))
    assert devices.adopt(OTHER.peer_id, smaller) and PairedDevices(OWN, tmp_path).operator == smaller


def test_there_are_not_too_many(tmp_path: Path) -> None:
    devices = PairedDevices(OWN)
    for number in range(MAX_DEVICES):
        other = identity(100 + number)
        devices.add(other.peer_id, certificate(OWN, other), OPERATOR, 0)
    with pytest.raises(ConfigError, match="unpair"):
        devices.add(OTHER.peer_id, certificate(OWN, OTHER), OPERATOR, 0)
    devices.add(identity(100).peer_id, certificate(OWN, identity(100)), OPERATOR, 0)


Tampering = Callable[[dict[str, Any]], None]


def _set(name: str, value: Any) -> Tampering:
    return lambda content: content["devices"][0].__setitem__(name, value)


def _swap(content: dict[str, Any]) -> None:
    first, second = content["devices"]
    first["may_read_prompts"], second["may_read_prompts"] = second["may_read_prompts"], first["may_read_prompts"]


def _flip(name: str) -> Tampering:
    def flip(content: dict[str, Any]) -> None:
        text = content["devices"][0][name]
        content["devices"][0][name] = f"{int(text[0], 16) ^ 1:x}{text[1:]}"

    return flip


TAMPERED: dict[str, Tampering] = {
    "another device": _set("peer_id", identity(9).peer_id),
    "who asked": _set("asked_by", OTHER.peer_id),
    "asked by a stranger": _set("asked_by", identity(9).peer_id),
    "a signature": _flip("asker_signature"),
    "the other signature": _flip("answerer_signature"),
    "the pairing": _flip("pairing"),
    "consent that was not given": _set("may_read_prompts", "00" * 64),
    "consent from another device": _swap,
    "consent as a word": _set("may_read_prompts", True),
    "a short signature": _set("asker_signature", "00"),
    "no hex": _set("pairing", "pairing"),
    "a date that is none": _set("paired_at", None),
    "a device twice": lambda content: content["devices"].append(content["devices"][0]),
    "no devices": lambda content: content.pop("devices"),
    "a short operator": lambda content: content.__setitem__("operator", "00"),
    "revoked by nobody": lambda content: content["revoked"].append({"peer_id": "x", "pairing": "00" * 32}),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_tampered_file_is_refused_and_named(tmp_path: Path, name: str) -> None:
    paired(tmp_path)
    path = tmp_path / FILE_NAME
    content = json.loads(path.read_text())
    TAMPERED[name](content)
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError) as refused:
        PairedDevices(OWN, tmp_path)
    assert str(path) in str(refused.value) and "pair the devices again" in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}" + b" " * (1 << 20)])
def test_a_broken_file_is_refused_and_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(ConfigError, match=FILE_NAME):
        PairedDevices(OWN, tmp_path)


def test_the_file_of_another_identity_is_refused(tmp_path: Path) -> None:
    paired(tmp_path)
    with pytest.raises(ConfigError, match=FILE_NAME):
        PairedDevices(identity(9), tmp_path)


def test_devices_are_looked_up_by_peer_id() -> None:
    devices = PairedDevices(OWN)
    devices.add(OTHER.peer_id, certificate(OWN, OTHER), OPERATOR, 5.9)
    device = devices.get(OTHER.peer_id)
    assert device is not None and device.paired_at == 5 and devices.get(PeerId("12D3")) is None
