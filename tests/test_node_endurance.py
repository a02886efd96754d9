"""What an unforeseen exception in a part of a node does: the part goes on, or the whole node says so and ends."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from gateway_fakes import serving
from live_nodes import LOOPBACK, LiveNode, RawClient
from made_parts import MODEL_ID, identity, make_unit
from waiting import until

from node.discovery.discovery import Discovery
from node.discovery.mdns import LanIdentity
from node.gateway.live.feed import Broadcaster
from node.process import endurance
from node.process.endurance import FIRST_PAUSE_S, GOOD_S, MAX_FAILURES, MAX_PAUSE_S, Endurance, GivenUpError, endure
from node.serving.disk_reader import DiskReader, Fetched, ReadTask
from node.transport.control import ControlPlane
from protocol.linear.messages import ChunkBinding, Linear, Role


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endurance, "MAX_FAILURES", 2)
    monkeypatch.setattr(endurance, "FIRST_PAUSE_S", 0.001)


def test_pauses_grow_until_a_part_is_given_up() -> None:
    now = [0.0]
    part = Endurance("the part", lambda: now[0])
    pauses = [part.failed(ValueError()) for _ in range(MAX_FAILURES)]
    assert pauses[0] == FIRST_PAUSE_S and pauses[-1] == MAX_PAUSE_S and pauses == sorted(pauses)
    with pytest.raises(GivenUpError, match="the part failed 9 times, last by ValueError"):
        part.failed(ValueError())


def test_a_part_that_went_on_for_long_has_a_clean_slate() -> None:
    now = [0.0]
    part = Endurance("the part", lambda: now[0])
    for _ in range(3 * MAX_FAILURES):
        now[0] += GOOD_S + 1
        assert part.failed(ValueError()) == FIRST_PAUSE_S


def test_scarcity_is_waited_out() -> None:
    part = Endurance("the part")
    for _ in range(3 * MAX_FAILURES):
        assert part.failed(OSError(errno.EMFILE, "too many open files")) <= MAX_PAUSE_S


def test_work_that_ends_or_is_cancelled_is_not_begun_again() -> None:
    begun = []

    async def work() -> None:
        begun.append(1)
        await asyncio.sleep(0 if len(begun) == 1 else 60)

    async def both() -> None:
        await endure("the part", work)
        task = asyncio.create_task(endure("the part", work))
        while len(begun) < 2:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(both())
    assert len(begun) == 2


class Failing:
    """A resident that fails when it is told to."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.goes_on: Future[None] = Future()

    def start(self, plane: ControlPlane) -> None:
        pass

    async def run(self) -> None:
        if self.left:
            self.left -= 1
            raise RuntimeError("nobody foresaw this")
        self.goes_on.set_result(None)
        await asyncio.Event().wait()

    async def leave(self) -> None:
        raise RuntimeError("nor this")


def test_a_resident_that_fails_goes_on_and_the_links_with_it(caplog: pytest.LogCaptureFixture) -> None:
    with LiveNode(0) as listener:
        assert listener.address is not None
        failing = Failing(1)
        dialler = LiveNode(1, bootstrap=[listener.address])
        dialler.control.add(failing)
        with dialler:
            failing.goes_on.result(10)
            dialler.until_knows(listener.peer_id)
            listener.until_knows(dialler.peer_id)
        listener.until_knows()  # its goodbye was said, though a resident failed to say its own
    said = [record for record in caplog.records if "Failing failed and goes on" in record.message]
    assert len(said) == 1 and said[0].levelno == logging.ERROR and said[0].exc_info is not None


@pytest.mark.usefixtures("no_patience")
def test_a_resident_that_always_fails_ends_the_plane_and_is_told() -> None:
    told: Future[BaseException] = Future()
    node = LiveNode(0)
    node.control.on_end = told.set_result
    node.control.add(Failing(1000))
    with node:
        ended = told.result(10)
    assert isinstance(ended, BaseExceptionGroup)
    assert "Failing failed 3 times, last by RuntimeError" in str(ended.exceptions[0])


UNIT = make_unit(20, 6)
REQUEST = Linear(ChunkBinding(bytes(16), 1, MODEL_ID, UNIT.ref.sha256, Role.PAD, 0, 1, 0, 1), seed=bytes(32))


def test_a_turn_of_the_data_plane_that_fails_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [RuntimeError("nobody foresaw this")]
    with LiveNode(0, [UNIT]) as node:
        step = node.data._computing.step

        def step_or_fail() -> None:
            if failures:
                raise failures.pop()
            step()

        monkeypatch.setattr(node.data._computing, "step", step_or_fail)
        assert node.address is not None
        with RawClient(node.address.endpoint, node.peer_id, identity(1)) as control:
            control.say_hello()
            with RawClient(node.data_endpoint, node.peer_id, identity(1)) as data:
                data.send(REQUEST, 1)
                received = data.receive(10.0)
                assert received is not None and received.id == 1
    assert not failures


@pytest.mark.usefixtures("no_patience")
def test_a_data_plane_that_always_fails_is_told_and_hangs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    node, told = LiveNode(0, listen=LOOPBACK), Future[Exception]()
    node.data.on_end = told.set_result

    def fail() -> None:
        raise RuntimeError("nobody foresaw this")

    with node:
        monkeypatch.setattr(node.data._outbox, "send_again", fail)
        node.data.offer(identity(1).peer_id, "127.0.0.1", 1)  # wakes it
        assert isinstance(told.result(10), GivenUpError)
        assert node.data._thread is not None
        node.data._thread.join(10)
        for _ in range(5000):  # more than a queue of ZeroMQ takes
            node.data.offer(identity(1).peer_id, "127.0.0.1", 1)


def test_a_librarian_that_meets_a_bug_goes_on() -> None:
    def find(sha256: bytes) -> None:
        if sha256 == bytes(32):
            raise RuntimeError("nobody foresaw this")

    brought: list[Fetched] = []
    disk_reader = DiskReader(find, brought.append)
    disk_reader.start()
    disk_reader.send(ReadTask(bytes(32), None, "first"))
    disk_reader.send(ReadTask(bytes(31) + b"\x01", None, "second"))
    until(lambda: len(brought) == 2, "both tasks are answered")
    disk_reader.stop()
    assert [fetched.found for fetched in brought] == [None, None]


def test_multicast_dns_that_fails_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("node.discovery.discovery.INTERVAL_S", 0.001)
    tries = []

    def listening() -> list[Any]:
        tries.append(1)
        if len(tries) < 5:
            raise RuntimeError("nobody foresaw this")
        return []

    me = LanIdentity(identity(0).public_key, bytes(32))
    discovery = Discovery(me, listening, (), lambda: None, lambda address: None, on_lan=True)
    discovery.start()
    until(lambda: len(tries) >= 5, "it goes on")
    discovery.stop()
    assert "multicast DNS failed (RuntimeError('nobody foresaw this'))" in caplog.text


@pytest.mark.usefixtures("no_patience")
def test_a_gateway_that_cannot_go_on_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_self: Broadcaster) -> None:
        raise RuntimeError("nobody foresaw this")

    with monkeypatch.context() as patch:
        patch.setattr(Broadcaster, "run", fail)
        with serving(tmp_path) as node:
            until(lambda: node.node.failure, "the node is told")
            assert "the gateway of this node has ended" in str(node.node.failure)


# --- whole processes

PROGRAM = """
import sys
from node.process import endurance
from node.cli.main import main
from node.guards.watch import GuardWatch

async def fail(self):
    import asyncio
    await asyncio.sleep({after_s})
    raise RuntimeError("nobody foresaw this")

endurance.MAX_FAILURES, endurance.FIRST_PAUSE_S = 2, 0.001
GuardWatch.run = fail
main(sys.argv[1:])
"""


def start(after_s: float, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM.format(after_s=after_s), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def own_folder(tmp_path: Path) -> Iterator[list[str]]:
    yield ["--data-dir", str(tmp_path), "--threads", "1"]


@pytest.mark.swarm
def test_a_node_whose_control_plane_ends_ends_with_exit_code_1(own_folder: list[str]) -> None:
    with start(0.05, "--headless", "--json", *own_folder) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["type"] == "ready"
            _, narration = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 1, narration
    last = narration.splitlines()[-1]
    assert last.startswith("error: the control plane of this node has ended") and last.endswith("start it again")


@pytest.mark.swarm
def test_a_run_whose_control_plane_ends_answers_all_the_same(own_folder: list[str]) -> None:
    wanted = ["run", "--json", "--max-tokens", "40", "--ignore-eos", "--temperature", "0", *own_folder, "Once upon"]
    with start(1000, *wanted) as untroubled:
        expected, _ = untroubled.communicate(timeout=60)
    with start(0, *wanted) as process:
        out, narration = process.communicate(timeout=60)
    assert process.returncode == 0, narration
    assert "the control plane of this node has ended" in narration and "only on this device" in narration
    texts = [json.loads(lines.splitlines()[-1])["text"] for lines in (expected, out)]
    assert texts[0] and texts[0] == texts[1]
