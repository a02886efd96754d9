"""How a session is opened: who may be in it, in which role, and what is left behind where that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from live_nodes import LOOPBACK, WAIT_S
from made_parts import KERNELS, identity
from msgspec.structs import replace
from test_model_checkpoints import write_byte_tokenizer, write_checkpoint
from waiting import until

from node.config import NodeConfig
from node.engine import Engine, GenerationRequest
from node.engine.request import Completed, Event
from node.errors import ConfigError, CorruptModelError
from node.execution.manager import ExecutionManager
from node.execution.owners import PadOwner
from node.execution.pads.batch import PadBatch
from node.execution.requests import pad_request
from node.model.sampling import SamplingParams
from node.node import Node
from node.privacy import Privacy
from node.session import opening
from node.session import session as session_module
from node.session.config import SessionConfig
from node.session.plan import LanePlan
from node.session.session import Session
from node.store.importer import import_checkpoint
from node.store.library import Library
from node.store.stored import StoredModel
from node.transport.channel import Channel
from protocol.errors import LocalProtocolError
from protocol.linear.messages import Role
from protocol.link.hello import Hello

WORKERS = 4


class Idle(Node):
    """A node that offers no linear work."""

    def hello(self) -> Hello:
        return replace(super().hello(), work=())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    folder = tmp_path_factory.mktemp("store")
    checkpoint = write_checkpoint(folder / "checkpoint", {})
    write_byte_tokenizer(checkpoint)
    return StoredModel(import_checkpoint(checkpoint, folder / "models").path)


@pytest.fixture
def workers(model: StoredModel) -> Iterator[list[Node]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(Node(NodeConfig(identity(index), LOOPBACK, threads=1), [model], KERNELS))
            for index in range(WORKERS)
        ]


def client_of(stack: ExitStack, workers: list[Node], model: StoredModel, named: bool = False) -> Node:
    addresses = tuple(worker.addresses[0] for worker in workers)
    peers = tuple(worker.peer_id for worker in workers) if named else ()
    config = NodeConfig(identity(99), LOOPBACK, addresses, threads=1, named=peers)
    client = stack.enter_context(Node(config, [model], KERNELS))
    for worker in workers:
        assert client.registry.wait_up(worker.peer_id, WAIT_S)
    return client


def test_a_session_that_cannot_be_opened_hangs_up(
    workers: list[Node], model: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Channel] = []

    def open_and_note(*arguments: object) -> Channel:
        opened.append(open_channel(*arguments))  # type: ignore[arg-type]
        return opened[-1]

    open_channel = opening.open_channel
    monkeypatch.setattr(opening, "open_channel", open_and_note)

    def refuse(*_arguments: object) -> None:
        raise CorruptModelError("the head is damaged")

    monkeypatch.setattr(session_module, "HybridExecutor", refuse)
    with ExitStack() as stack:
        client = client_of(stack, workers, model)
        with pytest.raises(CorruptModelError, match="the head is damaged"):
            Session(client, model, SessionConfig(Privacy.STRICT))
        assert len(opened) == WORKERS and all(channel.closed for channel in opened)


def test_pads_that_do_not_fit_into_memory_are_not_begun(
    workers: list[Node], model: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    row_bytes = sum(4 * (ref.num_inputs + ref.num_outputs) for ref in model.units if ref.kind != "head")
    monkeypatch.setattr(session_module, "available_memory", lambda: 2 * 100 * row_bytes)
    with ExitStack() as stack:
        client = client_of(stack, workers, model)
        with pytest.raises(ConfigError, match=r"--pad-rows 101 needs .* give at most 100"):
            Session(client, model, SessionConfig(Privacy.STRICT, pad_rows=101))
        with Session(client, model, SessionConfig(Privacy.STRICT, pad_rows=100)) as session:
            assert session.pads_made >= 100


def test_nobody_holds_both_roles_whatever_a_plan_says(workers: list[Node], model: StoredModel) -> None:
    with ExitStack() as stack:
        client = client_of(stack, workers, model)
        with Session(client, model, SessionConfig(Privacy.SPLIT)) as session:
            first = session.plan.lanes[0]
            assert first.pads is not None
            peers = {peer.peer_id: peer for peer in client.registry.usable()}
            opener = session._opener
            assert opener is not None
            assert not opener.may_open(LanePlan(first.pads, first.share)), "nor for a lane that comes later"
            assert not opener.may_open(LanePlan(first.share, first.share)) and not opener.may_open(first)
            with pytest.raises(LocalProtocolError, match="two roles"):
                opener.open_lane(LanePlan(first.pads, first.share), peers)
            sharer = next(peer for peer in session.peers if peer.peer_id == first.share)
            assert isinstance(session._manager, ExecutionManager)
            unit = model.unit(0, "qkv")
            batch = PadBatch(unit.ref, bytes(32), 1)
            owner = PadOwner(batch, lambda request, state: None)
            with pytest.raises(LocalProtocolError, match="the seed of a pad"):
                pad_request(sharer, model.model_id_bytes, owner)


@pytest.mark.parametrize("mode", [Privacy.SPLIT, Privacy.STRICT])
def test_no_session_repeats_a_pad_of_another(workers: list[Node], model: StoredModel, mode: Privacy) -> None:
    """All lanes of two sessions, and of one after the same device was started again."""
    unit, pads = model.unit(0, "qkv"), list[bytes]()

    def take_some(client: Node) -> None:
        with Session(client, model, SessionConfig(mode)) as session:
            assert session._manager is not None and len(session._manager.lanes) > 1
            for lane in session._manager.lanes:
                pads.extend(lane.pads.take(unit, 1, 1).pads[0].tobytes() for _ in range(3))

    for _start in range(2):
        with ExitStack() as stack:
            client = client_of(stack, workers, model)
            take_some(client)
            take_some(client)
    assert len(set(pads)) == len(pads)


def test_every_pass_draws_its_pads_with_fresh_random_bytes(workers: list[Node], model: StoredModel) -> None:
    """So two copies of one device, which go on with the same memory, draw different pads."""
    with ExitStack() as stack:
        client = client_of(stack, workers, model)
        with Session(client, model, SessionConfig(Privacy.SPLIT)) as session:
            assert session._opener is not None
            masters = {session._opener._seeds.master}
            for _pass in range(2):
                session.decoder.forward([1, 2, 3], session.decoder.new_cache())
                masters.add(session._opener._seeds.master)
            assert len(masters) == 3
        assert client.registry.on_link_end == client.pads.clear
        cleared: list[bool] = []
        client.registry.on_link_end = lambda: cleared.append(True)
        with Node(NodeConfig(identity(50), None, (client.addresses[0],), threads=1), [model], KERNELS) as guest:
            assert client.registry.wait_up(guest.peer_id, WAIT_S) and not cleared
        until(lambda: bool(cleared), "the pads that are ready were kept when a link ended")


def test_pads_ahead_end_where_a_peer_attached_itself_anew(model: StoredModel) -> None:
    """Such a peer's connection is this node's, and the session does not see it break."""
    with ExitStack() as stack:
        client = stack.enter_context(Node(NodeConfig(identity(99), LOOPBACK, threads=1), [model], KERNELS))
        config = NodeConfig(identity(1), None, (client.addresses[0],), threads=1)
        worker = stack.enter_context(Node(config, [model], KERNELS))
        assert client.registry.wait_up(worker.peer_id, WAIT_S)
        until(lambda: client.registry.route_of(worker.peer_id) is not None, "it has not attached itself")
        with Session(client, model, SessionConfig(Privacy.STRICT, inbound_peers=True)) as session:
            assert session._opener is not None and session._manager is not None
            own = session._opener.own_pads
            assert own is not None and session._manager.peers[0].channel.is_borrowed
            session._look_around()
            unit = model.unit(0, "qkv")
            own.take(unit, 1, 1)
            session._look_around()
            assert own._pool[unit.ref]
            client.registry.attach(identity(1).curve_public_key, b"another route")
            session._look_around()
            assert not own._pool


@pytest.mark.parametrize("mode", [Privacy.SPLIT, Privacy.STRICT])
def test_who_joins_later_is_used_in_the_mode_that_was_asked_for(model: StoredModel, mode: Privacy) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(Node(NodeConfig(identity(99), LOOPBACK, threads=1), [model], KERNELS))
        session = stack.enter_context(Session(client, model, SessionConfig(mode, inbound_peers=True)))
        assert session.mode is Privacy.LOCAL and not session.peers
        for index in (1, 2):
            config = NodeConfig(identity(index), LOOPBACK, (client.addresses[0],), threads=1)
            worker = stack.enter_context(Node(config, [model], KERNELS))
            assert client.registry.wait_up(worker.peer_id, WAIT_S)
        session._look_around()
        assert session.mode is mode
        roles = sorted(peer.role for peer in session.peers)
        assert roles == ([Role.SHARE, Role.SHARE] if mode is Privacy.STRICT else [Role.PAD, Role.SHARE])
        assert session._manager is not None
        assert {lane.guard is None for lane in session._manager.lanes} == {mode is Privacy.STRICT}


def test_who_offers_no_linear_work_is_asked_for_none(model: StoredModel) -> None:
    with ExitStack() as stack:
        idle = stack.enter_context(Idle(NodeConfig(identity(1), LOOPBACK, threads=1), [model], KERNELS))
        busy = stack.enter_context(Node(NodeConfig(identity(2), LOOPBACK, threads=1), [model], KERNELS))
        client = client_of(stack, [idle, busy], model)
        with Session(client, model, SessionConfig(Privacy.STRICT)) as session:
            assert [peer.peer_id for peer in session.peers] == [busy.peer_id]


@pytest.mark.parametrize("turned", [False, True])
def test_a_serving_node_takes_the_places_that_its_user_chose(
    workers: list[Node], model: StoredModel, turned: bool
) -> None:
    """Peers 2i and 2i + 1 of --bootstrap are the guards of lane i (SPEC.md section 2)."""
    order = workers[::-1] if turned else workers
    heard: list[Event] = []
    with ExitStack() as stack:
        client = client_of(stack, order, model, named=True)
        engine = stack.enter_context(Engine(client, Library(model.path.parent)))
        params = SamplingParams(max_tokens=2, temperature=0.0, ignore_eos=True)
        engine.submit(GenerationRequest("one", model, (1, 2, 3), params, Privacy.SPLIT, True), heard.append)
        session = _session_of(engine)
        lanes = [(lane.pads, lane.share) for lane in session.plan.lanes]
        assert lanes == [(a.peer_id, b.peer_id) for a, b in zip(order[::2], order[1::2], strict=True)]


def _session_of(engine: Engine) -> Session:
    """The session of the only request, as soon as it is over."""
    (runner,) = engine._runners.values()
    until(lambda: runner._session is not None and not runner.requests(), "it is answered")
    assert runner._session is not None
    return runner._session


def test_a_listener_may_ask_the_engine_while_it_is_told(workers: list[Node], model: StoredModel) -> None:
    """Queued is told under no lock: whoever cancels on it, or looks who waits, does not stop the engine."""
    heard: list[Event] = []
    with ExitStack() as stack:
        client = client_of(stack, workers, model)
        engine = stack.enter_context(Engine(client, Library(model.path.parent)))

        def listen(event: Event) -> None:
            heard.append(event)
            if len(heard) == 1:
                assert len(engine.requests()) == 1
                assert engine.cancel("one")

        params = SamplingParams(max_tokens=50, temperature=0.0, ignore_eos=True)
        engine.submit(GenerationRequest("one", model, (1, 2, 3), params, Privacy.LOCAL, True), listen)
        assert isinstance(heard[-1], Completed) and heard[-1].receipt.finish_reason == "cancelled"
