"""The interface with a real node behind it that it starts, loses, starts again and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from tui_driver import Driver

from scripts.harness.gateway_twin import GatewayTwin
from tui.app import KekahydeApp
from tui.conversation import AnswerStatus
from tui.launcher import NodeLauncher, StartError

pytestmark = pytest.mark.swarm


def node_command(data_dir: Path) -> list[str]:
    options = ["--headless", "--json", "--data-dir", str(data_dir), "--listen", "none", "--no-mdns", "--threads", "1"]
    return [sys.executable, "-m", "node", *options]


def test_a_real_node_answers_is_stopped_is_lost_and_comes_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        launcher = NodeLauncher(tmp_path, node_command(tmp_path))
        app = KekahydeApp(launcher)
        async with app.run_test(size=(100, 30), notifications=True) as pilot:
            driver = Driver(app, pilot, GatewayTwin())
            await driver.keys("enter")  # before the node is there
            await driver.until(lambda: app.session.answer and app.session.answer.receipt)
            answer = app.session.answer
            assert answer is not None and answer.receipt is not None
            assert answer.text == answer.receipt["text"] and answer.tokens == answer.receipt["tokens"] > 0
            await driver.sees("local · ", "regenerate")
            assert app.session.model is not None and not app.session.model.chat and app.session.model.context == 512
            await driver.keys("ctrl+r")
            await driver.until(lambda: app.session.answer is not answer and app.session.answer.tokens)
            await driver.keys("escape")
            await driver.until(lambda: app.session.answer and app.session.answer.receipt)
            await lose_the_node(driver, launcher)
        await launcher.stop()

    asyncio.run(scenario())


def test_a_prompt_longer_than_the_context_is_refused_as_everywhere_and_does_no_harm(tmp_path: Path) -> None:
    async def scenario() -> None:
        launcher = NodeLauncher(tmp_path, node_command(tmp_path))
        app = KekahydeApp(launcher)
        async with app.run_test(size=(100, 30), notifications=True) as pilot:
            driver = Driver(app, pilot, GatewayTwin())
            await driver.until(lambda: app.session.model)
            await driver.type("The cat sat on the mat. " * 1125)
            await driver.keys("enter")
            await driver.until(lambda: app.session.answer and app.session.answer.ended)
            answer = app.session.answer
            assert answer is not None and answer.status is AnswerStatus.FAILED and not answer.text
            assert "tokens > 512" in answer.error and "shorten" in answer.error
            await driver.sees("tokens > 512")
            await driver.type("One day")
            await driver.keys("enter")
            await driver.until(lambda: app.session.answer and app.session.answer.receipt)
            assert app.session.answer is not None and not app.session.answer.notes
        await launcher.stop()

    asyncio.run(scenario())


async def lose_the_node(driver: Driver, launcher: NodeLauncher) -> None:
    """It dies; the screen says so; on demand another takes its place, and the conversation is still there."""
    pid = launcher.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await driver.sees("The node has ended", "Try again")
    await driver.keys("r")
    await driver.until(lambda: launcher.pid != pid and driver.app.session.link == "")
    await driver.sees("regenerate")  # not the prompt: a long answer may have scrolled it away
    assert "little robot who" in driver.app.session.conversation.turns[0].prompt
    running = launcher.pid
    assert running is not None and psutil.pid_exists(running)
    await launcher.stop()
    assert not psutil.pid_exists(running)


def test_a_node_that_another_started_is_used_and_left_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = NodeLauncher(tmp_path, node_command(tmp_path))
        await first.ensure()
        second = NodeLauncher(tmp_path, node_command(tmp_path))
        await second.ensure()
        assert second.pid is None
        await second.stop()
        assert await first.place.answers()
        await first.stop()
        assert not await first.place.answers()

    asyncio.run(scenario())


def test_why_a_node_did_not_start_is_told_in_its_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(StartError, match="nosuchmodel"):
            await NodeLauncher(tmp_path, [*node_command(tmp_path), "--model", "nosuchmodel"]).ensure()
        with pytest.raises(StartError, match="No such option"):
            await NodeLauncher(tmp_path, [*node_command(tmp_path), "--lissten", "none"]).ensure()
        with pytest.raises(StartError, match="no node runs on"):
            await NodeLauncher(tmp_path, None).ensure()

    asyncio.run(scenario())
