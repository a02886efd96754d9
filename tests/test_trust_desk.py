"""The pairing desk in a running control plane: real links, two or three nodes in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from live_nodes import LiveNode
from made_parts import identity
from waiting import until

from node.transport import control
from node.transport.link import Pace
from node.trust import PairedDevices, TrustDesk
from node.trust.desk import AttemptView, PairingError
from node.trust.paired import NotPairedError
from protocol.identity import PeerId
from protocol.multiaddr import Multiaddr
from protocol.pairing.states import PairState


@pytest.fixture(autouse=True)
def patient_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "DEFAULT_PACE", Pace(redial_first_s=0.05, redial_max_s=0.1))


@dataclass
class Home:
    """A node with a desk; `folder` outlives it."""

    node: LiveNode
    desk: TrustDesk
    changes: list[None]

    @property
    def peer_id(self) -> PeerId:
        return self.node.peer_id

    def attempt(self, other: Home) -> AttemptView | None:
        return next((view for view in self.desk.attempts() if view.peer_id == other.peer_id), None)

    def is_at(self, other: Home, state: PairState) -> bool:
        attempt = self.attempt(other)
        return attempt is not None and attempt.state == state.value


@contextlib.contextmanager
def home(index: int, folder: Path, bootstrap: list[Multiaddr] | None = None) -> Iterator[Home]:
    changes: list[None] = []
    devices = PairedDevices(identity(index), folder)
    node = LiveNode(index, bootstrap=bootstrap or [], operator=lambda: devices.operator)
    desk = TrustDesk(identity(index), devices, node.registry, lambda: changes.append(None))
    node.control.add(desk)
    with node:
        yield Home(node, desk, changes)


def address_of(home: Home) -> Multiaddr:
    assert home.node.address is not None
    return home.node.address


def pair(a: Home, b: Home, reads: bool = False) -> None:
    """Both owners say yes."""
    until(lambda: {b.peer_id} <= {peer.peer_id for peer in a.node.registry.peers()}, "a link")
    until(lambda: {a.peer_id} <= {peer.peer_id for peer in b.node.registry.peers()}, "a link")
    a.desk.start_pairing(b.peer_id)
    until(lambda: b.is_at(a, PairState.OFFERED), "the ask arrives")
    b.desk.start_pairing(a.peer_id)
    until(lambda: a.is_at(b, PairState.COMPARING) and b.is_at(a, PairState.COMPARING), "both show a code")
    code = a.attempt(b).code  # type: ignore[union-attr]
    a.desk.confirm(b.peer_id, code, reads)
    b.desk.confirm(a.peer_id, code, False)
    until(lambda: b.peer_id in a.desk.devices and a.peer_id in b.desk.devices, "both are paired")


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    made = [tmp_path / name for name in "abc"]
    for folder in made:
        folder.mkdir()
    return made


def test_two_nodes_pair_and_remember(folders: list[Path]) -> None:
    with home(1, folders[0]) as a, home(2, folders[1], [address_of(a)]) as b:
        pair(a, b, reads=True)
        assert a.desk.devices.readers == {b.peer_id} and not b.desk.devices.readers
        assert a.desk.devices.operator == b.desk.devices.operator != bytes(16)
        until(lambda: a.changes and b.changes, "the swarm is told of the operator")
    assert PairedDevices(identity(1), folders[0]).readers == {identity(2).peer_id}
    assert identity(1).peer_id in PairedDevices(identity(2), folders[1])


def test_who_is_not_connected_cannot_be_asked(folders: list[Path]) -> None:
    with home(1, folders[0]) as a:
        with pytest.raises(PairingError, match="not connected"):
            a.desk.start_pairing(identity(2).peer_id)
        with pytest.raises(PairingError, match="no attempt"):
            a.desk.confirm(identity(2).peer_id, "000000", False)
        with pytest.raises(NotPairedError):
            a.desk.unpair(identity(2).peer_id)


def test_a_refusal_arrives_with_its_reason(folders: list[Path]) -> None:
    with home(1, folders[0]) as a, home(2, folders[1], [address_of(a)]) as b:
        until(lambda: a.node.registry.peers() and b.node.registry.peers(), "a link")
        a.desk.start_pairing(b.peer_id)
        until(lambda: b.is_at(a, PairState.OFFERED), "the ask arrives")
        b.desk.refuse(a.peer_id)
        until(lambda: a.is_at(b, PairState.ENDED), "the refusal arrives")
        assert a.attempt(b).reason == "refused at the other device"  # type: ignore[union-attr]
        with pytest.raises(PairingError, match="not paired: refused at the other device"):
            a.desk.confirm(b.peer_id, "000000", False)
        assert not a.desk.devices.devices() and not list(folders[0].iterdir())


def test_a_pairing_taken_back_is_told_when_the_other_device_is_back(folders: list[Path]) -> None:
    with home(1, folders[0]) as a:
        with home(2, folders[1], [address_of(a)]) as b:
            pair(a, b)
        until(lambda: not a.node.registry.peers(), "the other one is gone")
        a.desk.unpair(b.peer_id)
        assert a.desk.devices.revoked() and b.peer_id not in a.desk.devices
        with home(2, folders[1], [address_of(a)]) as b:
            until(lambda: a.peer_id not in b.desk.devices, "the word arrives")
            until(lambda: not a.desk.devices.revoked(), "and is answered")
            until(lambda: b.changes, "the swarm is told")
    assert PairedDevices(identity(2), folders[1]).devices() == ()


def test_all_devices_of_one_owner_go_under_one_operator(folders: list[Path]) -> None:
    """A and B are paired, then B and C, whose operator may be the smaller one: A takes it over from B."""
    with home(1, folders[0]) as a, home(2, folders[1], [address_of(a)]) as b:
        pair(a, b)
        with home(3, folders[2], [address_of(b)]) as c:
            c.desk._desk.operator = bytes(15) + b"\1"
            pair(b, c)
            assert b.desk.devices.operator == c.desk.devices.operator == bytes(15) + b"\1"
            assert a.desk.devices.operator != b.desk.devices.operator
    with home(1, folders[0]) as a, home(2, folders[1], [address_of(a)]) as b:
        until(lambda: a.desk.devices.operator == b.desk.devices.operator, "the next link tells")
        until(lambda: a.changes, "the swarm is told")
