"""The user's word stands between plain rows and every device, paired or not: when a session opens, and ever after."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from live_nodes import LOOPBACK, WAIT_S
from made_parts import KERNELS, identity
from msgspec.structs import replace
from test_model_checkpoints import write_byte_tokenizer, write_checkpoint
from test_trust_paired import certificate

from node.config import NodeConfig
from node.errors import UnitUnavailableError
from node.execution.config import ExecutionConfig
from node.execution.hybrid import HybridExecutor
from node.execution.manager import ExecutionManager
from node.kernels import has_same_floats
from node.node import Node
from node.privacy import Privacy
from node.session.candidates import CandidateFinder
from node.session.opening import LaneOpener
from node.session.plan import LanePlan, PadMaker, SessionPlan
from node.session.span_opener import SpanOpener
from node.spans.stage import Stage
from node.store.importer import import_checkpoint
from node.store.stored import StoredModel
from node.transport.registry import ConnectedPeer
from node.trust.paired import NotPairedError, PairedDevices
from protocol.identity import PeerId

OWN, OPERATOR = identity(99), bytes([5] * 16)
STRANGER, READER, MAKER = (identity(index) for index in range(3))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    folder = tmp_path_factory.mktemp("store")
    checkpoint = write_checkpoint(folder / "checkpoint", {})
    write_byte_tokenizer(checkpoint)
    return StoredModel(import_checkpoint(checkpoint, folder / "models").path)


@pytest.fixture
def client(model: StoredModel, tmp_path: Path) -> Iterator[Node]:
    """A node with three peers; two of them are paired with it, and none may read prompts."""
    devices = PairedDevices(OWN, tmp_path)
    for device in (READER, MAKER):
        devices.add(device.peer_id, certificate(OWN, device, device.public_key), OPERATOR, time.time())
    with ExitStack() as stack:
        peers = [
            stack.enter_context(Node(NodeConfig(each, LOOPBACK, threads=1), [model], KERNELS))
            for each in (STRANGER, READER, MAKER)
        ]
        addresses = tuple(peer.addresses[0] for peer in peers)
        config = NodeConfig(OWN, LOOPBACK, addresses, threads=1, paired=devices)
        client = stack.enter_context(Node(config, [model], KERNELS))
        for peer in peers:
            assert client.registry.wait_up(peer.peer_id, WAIT_S)
        yield client


@pytest.fixture
def manager(client: Node, model: StoredModel) -> Iterator[ExecutionManager]:
    checks = client.checks_of(model)
    manager = ExecutionManager(KERNELS, model.model_id_bytes, checks, 1e9, ExecutionConfig(), lambda unit: None)
    yield manager
    manager.close()


def connected(client: Node) -> dict[PeerId, ConnectedPeer]:
    return {peer.peer_id: peer for peer in client.registry.usable()}


def test_a_lane_of_plain_rows_opens_and_stays_with_consent_alone(
    client: Node, model: StoredModel, manager: ExecutionManager
) -> None:
    opener = LaneOpener(client, manager, PadMaker.NOBODY, model.model_id_bytes)
    for peer in (STRANGER, READER):
        with pytest.raises(NotPairedError, match="may not read your prompts"):
            opener.open_lane(LanePlan(peer.peer_id), connected(client))
    assert not manager.peers, "nobody was even dialled"
    client.trust.devices.allow_reading(READER.peer_id, True)
    opener.open_lane(LanePlan(READER.peer_id), connected(client))
    assert not opener.wait_connected()
    (lane,) = manager.lanes
    assert lane.usable and lane.takes_rows
    client.trust.devices.allow_reading(READER.peer_id, False)
    assert not lane.usable and not lane.takes_rows


def test_a_device_makes_pads_of_strict_while_it_is_paired(
    client: Node, model: StoredModel, manager: ExecutionManager
) -> None:
    opener = LaneOpener(client, manager, PadMaker.PAIRED, model.model_id_bytes)
    opener.open_lane(LanePlan(STRANGER.peer_id, MAKER.peer_id), connected(client))
    assert not opener.wait_connected()
    (lane,), unit = manager.lanes, model.unit(0, "qkv")
    pads = opener.paired_pads[MAKER.peer_id]
    lane.pads.take(unit, 1, 1)
    asked = pads.rows_asked
    assert asked and opener.own_pads is not None and not opener.own_pads.rows_made
    client.trust.devices.revoke(MAKER.peer_id)
    lane.pads.take(unit, 1, 1).complete()
    lane.pads.prepare([unit], 8)
    assert pads.rows_asked == asked and opener.own_pads.rows_made


@pytest.mark.skipif(not has_same_floats(KERNELS), reason="the C kernels are not built")
def test_spans_open_and_stay_with_consent_alone(client: Node, model: StoredModel) -> None:
    def offers() -> set[PeerId]:
        finder = CandidateFinder(client, model, None, False, 1)
        return {offer.peer_id for offer in finder.offers()}

    plan = SessionPlan(Privacy.TRUSTED)
    executor = HybridExecutor(KERNELS)
    opener = SpanOpener(client, model, executor, lambda: (), lambda sentence: None, plan, frozenset, share=0.0)
    assert offers() == set()
    for peer in (STRANGER, READER):
        with pytest.raises(NotPairedError, match="may not read your prompts"):
            opener._joined(peer.peer_id)
    client.trust.devices.allow_reading(READER.peer_id, True)
    assert offers() == {READER.peer_id}
    device = opener._joined(READER.peer_id)
    try:
        assert device.peer.channel.wait_connected(WAIT_S) and device.is_usable
        client.trust.devices.allow_reading(READER.peer_id, False)
        assert device.trouble == "you no longer let it read prompts" and offers() == set()
    finally:
        device.close()


def test_layers_of_a_lost_device_go_to_lanes_that_hold_them_all(
    client: Node, model: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the client waits for the device; in the mode that the plan has for others."""
    monkeypatch.setattr(type(model), "holds", lambda self, ref: ref.layer is None)
    first = {ref.sha256 for ref in model.units if ref.layer == 0}
    covered = set(first)
    plan = SessionPlan(Privacy.TRUSTED, PadMaker.PEER, (LanePlan(STRANGER.peer_id, MAKER.peer_id),))
    plan = replace(plan, lanes_mode=Privacy.SPLIT)
    told: list[str] = []
    executor = HybridExecutor(KERNELS)
    opener = SpanOpener(client, model, executor, lambda: (), told.append, plan, lambda: frozenset(covered), share=0.0)
    stages = opener._others(range(1))
    assert stages is not None and [(stage.layers, stage.lent) for stage in stages] == [(range(1), "split")]
    assert opener._others(range(2)) is None
    covered |= {ref.sha256 for ref in model.units if ref.layer == 1}
    assert opener._others(range(2)) is not None
    alone = SpanOpener(
        client, model, executor, lambda: (), told.append, SessionPlan(Privacy.TRUSTED), frozenset, share=0.0
    )
    assert alone._others(range(1)) is None

    monkeypatch.setattr("node.session.span_opener.WAIT_S", 0.0)
    covered.clear()
    client.trust.devices.allow_reading(READER.peer_id, True)
    device = alone._joined(READER.peer_id)
    try:
        lost = Stage(range(1), device, 1)
        (borrows,) = opener._replace(lost, "it is silent")
        assert borrows.lent == "split" and "waiting for a device" in told[0] and "layer 0 in split" in told[-1]
        with pytest.raises(UnitUnavailableError, match="start a device that holds the model"):
            alone._replace(lost, "it is silent")
    finally:
        device.close()
