"""What a person does with other devices in the interface: join, invite, name, pair, ban; real nodes on both sides."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tui_driver import Driver

from node.gateway.client.client import call_node
from scripts.harness.gateway_twin import GatewayTwin
from scripts.harness.swarm import NodeProcess, Swarm
from tui.app import KekahydeApp
from tui.launcher import NodeLauncher
from tui.screens.pairing import PairingScreen
from tui.snapshot import PeerFacts

pytestmark = pytest.mark.swarm


def node_command(data_dir: Path) -> list[str]:
    options = ["--headless", "--json", "--data-dir", str(data_dir), "--no-mdns", "--threads", "1", "--no-gateway"]
    return [sys.executable, "-m", "node", *options, "--name", "ben"]


@asynccontextmanager
async def ended(launcher: NodeLauncher) -> AsyncIterator[None]:
    """The node that the interface started ends with the test, however the test ends."""
    try:
        yield
    finally:
        await launcher.stop()


def state_of(node: NodeProcess, peer_id: str) -> str:
    """How far the other side's attempt to pair with this peer is."""
    attempts = call_node(node.data_dir, "pair_list")["attempts"]
    return next((str(attempt["state"]) for attempt in reversed(attempts) if attempt["peer_id"] == peer_id), "")


async def call(node: NodeProcess, op: str, **arguments: object) -> dict[str, object]:
    return await asyncio.to_thread(lambda: call_node(node.data_dir, op, **arguments))


def test_a_newcomer_joins_names_pairs_and_bans_without_a_command(tmp_path: Path) -> None:
    async def scenario(anna: NodeProcess) -> None:
        launcher = NodeLauncher(tmp_path, node_command(tmp_path))
        app = KekahydeApp(launcher)
        app.animation_level = "none"
        async with ended(launcher), app.run_test(size=(120, 40), notifications=True) as pilot:
            driver = Driver(app, pilot, GatewayTwin())

            def peer() -> PeerFacts | None:
                return next((one for one in app.session.state.peers if one.peer_id == anna.peer_id), None)

            await driver.until(lambda: app.session.state.node.peer_id)
            me = app.session.state.node.peer_id
            invited = str((await call(anna, "invite"))["line"])
            await driver.keys("f3")
            await driver.sees("If you were invited, press j")
            await driver.keys("j")
            await driver.sees("Join a swarm")
            await driver.type(f"{invited[:-3]}…")
            await driver.keys("enter")
            await driver.sees("damaged")
            await driver.keys("j")
            await driver.sees("Join a swarm")
            await driver.type(f"kekahyde-node join '{invited}'")
            await driver.keys("enter")
            await driver.sees("starts again in the swarm")
            await driver.until(lambda: peer() is not None and peer().connected)  # type: ignore[union-attr]
            await driver.sees("node0")
            assert launcher.pid is not None, "the node is still the one that was started here"

            await driver.keys("n")
            await driver.sees("Name this device")
            await driver.type("anna")
            await driver.keys("enter")
            await driver.sees("It is called anna", "anna (named here)")

            await pair(driver, anna, me)
            await driver.until(lambda: peer().paired)  # type: ignore[union-attr]

            await driver.keys("b")
            await driver.sees("Ban anna?")
            await driver.keys("y")
            await driver.sees("✗ banned")
            await driver.keys("b")
            await driver.until(lambda: not peer().excluded.startswith("banned"))  # type: ignore[union-attr]

            await driver.keys("i")
            await driver.sees("Invitation", "the key stays valid", "kekahyde:1:")
            await driver.keys("escape", "l")
            await driver.sees("It computes for others now", "Nobody has asked")
            await driver.keys("p")
            await driver.sees("It computes nothing now: its owner has paused it")
            await driver.keys("h")
            await driver.sees("From one hour")
            await driver.type("22-6")
            await driver.keys("enter")
            await driver.sees("from 22 to 6 o'clock")
            await driver.keys("escape")
            await driver.sees("This device computes nothing for others (its owner has paused it)")

    with Swarm() as swarm:
        swarm.start(1)
        asyncio.run(scenario(swarm.nodes[0]))


def test_a_page_that_is_loaded_again_finds_its_conversation(tmp_path: Path) -> None:
    """Two interfaces of one node, one after the other: the second goes on where the first was."""

    async def scenario(node: NodeProcess) -> None:
        async with KekahydeApp(NodeLauncher(node.data_dir, None)).run_test(size=(100, 30)) as pilot:
            assert isinstance(pilot.app, KekahydeApp)
            driver = Driver(pilot.app, pilot, GatewayTwin())
            driver.app.session.choose(max_tokens=12)  # so that prompt and answer are visible together
            await driver.type("There was a fox")
            await driver.keys("enter")
            await driver.until(lambda: driver.app.session.answer and driver.app.session.answer.receipt)
            answer = driver.app.session.answer
            assert answer is not None
            await driver.until(lambda: call_node(node.data_dir, "conversations")["conversations"])
        assert not (node.data_dir / "conversations").exists(), "nothing of it is on the disk"
        async with KekahydeApp(NodeLauncher(node.data_dir, None)).run_test(size=(100, 30)) as pilot:
            assert isinstance(pilot.app, KekahydeApp)
            driver = Driver(pilot.app, pilot, GatewayTwin())
            await driver.until(lambda: driver.app.session.answer and driver.app.session.answer.text == answer.text)
            await driver.sees("There was a fox", "regenerate")
            await driver.keys("ctrl+r")
            await driver.sees("answer 2 of 2")

    with Swarm() as swarm:
        swarm.start(1)
        asyncio.run(scenario(swarm.nodes[0]))


async def pair(driver: Driver, other: NodeProcess, me: str) -> None:
    """The other device asks; this one is asked on its screen, without a word typed; both see the same digits."""
    await call(other, "pair_start", peer=me)
    await driver.until(lambda: isinstance(driver.app.screen, PairingScreen))
    await driver.sees("asks to be paired")
    await driver.keys("y")
    await driver.until(lambda: state_of(other, me) == "comparing")
    attempt = next(one for one in (await call(other, "pair_list"))["attempts"] if one["peer_id"] == me)  # type: ignore[attr-defined]
    await driver.sees(f"{attempt['code'][:3]} {attempt['code'][3:]}", "same six digits")
    await driver.keys("y")
    await driver.sees("waiting for the other device")
    await call(other, "pair_confirm", peer=me, code=attempt["code"])
    await driver.sees("✓ Paired")
    await driver.keys("escape")
