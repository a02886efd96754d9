"""The real program in a real terminal against real nodes: keys sent, the screen read."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from terminal import Terminal, needs_tmux
from waiting import until

from node.gateway.client.connection import node_runs
from node.paths import DataDir
from scripts.harness.pty_program import PtyProgram
from scripts.harness.swarm import LaneWatch, Swarm

SIZE = (110, 34)
PROMPT = "Once upon a time, there was a little robot who"

pytestmark = [pytest.mark.swarm, needs_tmux]


def tokens_shown(screen: str) -> bool:
    """Whether an answer is being written: the line of facts says how fast."""
    return re.search(r"▶ \d+\.\d tok/s", screen) is not None


def choose_split(terminal: Terminal) -> None:
    terminal.keys("F7")
    terminal.sees("Privacy of the next prompts")
    terminal.keys("Down", "Down", "Enter")
    terminal.sees("split · ")


def test_a_swarm_through_the_terminal(tmp_path: Path) -> None:
    data_dir = tmp_path / "client"
    with Swarm() as swarm:
        swarm.start(4)
        command = [sys.executable, "-m", "node", "--data-dir", str(data_dir), "--threads", "1", *swarm.bootstrap()]
        with Terminal(tmp_path, SIZE, command, swarm.environment) as terminal:
            terminal.sees("continues stories", "4 peers can help")
            terminal.keep("1-welcome")
            choose_split(terminal)
            ask(terminal)
            terminal.keep("2-tokens")
            terminal.keys("F5")
            terminal.sees("Who computes when", "Where in the model", "in flight")
            terminal.until(lambda screen: re.search(r"✓ [1-9]\d* right", screen))
            terminal.keep("3-chunks")
            terminal.keys("F3")
            terminal.until(lambda screen: screen.count("● alive") >= 4 and "computes" in screen and "pads" in screen)
            terminal.keep("4-peers")
            terminal.keys("F2", "C-n")
            ask(terminal)
            terminal.keys("Escape")
            terminal.until(lambda screen: re.search(r"«stopped» · split · [1-9]\d* token", screen))
            terminal.keep("5-stopped")
            kill_one_on_the_way(terminal, swarm)
            terminal.keys("F8")
            terminal.sees("Split: who saw what", "No single peer could read anything")
            terminal.keep("8-receipt")
            terminal.keys("Escape")
            leave(terminal, data_dir)
        assert sum(node.process.poll() is None for node in swarm.nodes) == 3


def ask(terminal: Terminal) -> None:
    """Begin a conversation with the prompt and wait for its first tokens."""
    terminal.sees("Press Enter to try")
    terminal.type(PROMPT)
    terminal.keys("Enter")
    terminal.until(tokens_shown)


def kill_one_on_the_way(terminal: Terminal, swarm: Swarm) -> None:
    """One that works dies in the middle of an answer; the answer says so and goes on to its end."""
    watch = LaneWatch(swarm.nodes)
    terminal.keys("C-n")
    ask(terminal)
    swarm.nodes[watch.busiest()[1]].kill()
    noted = terminal.until(lambda screen: re.search(r"▲ peer \w+ ", screen))
    terminal.keep("6-peer-lost")
    assert "✗ no answer" not in noted
    terminal.until(lambda screen: re.search(r"split · \d+ tokens · first after", screen))
    terminal.keep("7-went-on")


def leave(terminal: Terminal, data_dir: Path) -> None:
    """Quitting ends the node that the interface started, which lets go of its directory."""
    terminal.keys("C-q")
    terminal.until(lambda _screen: terminal.exit_code is not None)
    assert terminal.exit_code == 0, terminal.screen
    lock = DataDir(data_dir).lock()
    assert lock is not None
    lock.close()


def test_a_node_ends_with_the_interface_that_started_it_even_where_that_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "node", "--data-dir", str(tmp_path / "data"), "--threads", "1"]
    with Swarm() as swarm, PtyProgram(command, SIZE, swarm.environment) as interface:
        until(lambda: node_runs(tmp_path / "data"), "its node runs")
        interface.process.kill()
        interface.process.wait()

        def is_free() -> bool:
            lock = DataDir(tmp_path / "data").lock()
            if lock is not None:
                lock.close()
            return lock is not None

        until(is_free, "its node has ended")
        assert not (tmp_path / "data" / "control.sock").exists(), "in good order"


def test_a_start_error_is_told_in_plain_words(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "node", "--data-dir", str(tmp_path / "data"), "--model", "nosuchmodel"]
    with Swarm() as swarm, Terminal(tmp_path, SIZE, command, swarm.environment) as terminal:
        screen = terminal.sees("The node did not start", "nosuchmodel", "Try again")
        assert "Traceback" not in screen
        terminal.keys("q")
        terminal.until(lambda _screen: terminal.exit_code is not None)
        assert terminal.exit_code == 1 and "nosuchmodel" in terminal.screen


def test_it_joins_the_node_that_runs_and_leaves_it_alone(tmp_path: Path) -> None:
    with Swarm() as swarm:
        swarm.start(1)
        running = swarm.nodes[0]
        command = [sys.executable, "-m", "node", "tui", "--data-dir", str(running.data_dir)]
        with Terminal(tmp_path, (60, 20), command, swarm.environment) as terminal:
            terminal.sees("continues stories", "F2 Chat", "model story")
            terminal.keys("Enter")
            terminal.until(lambda screen: "tok/s" in screen)
            terminal.keys("F3")
            terminal.sees("No peers yet", "press i")
            terminal.keys("q")
            terminal.until(lambda _screen: terminal.exit_code is not None)
            assert terminal.exit_code == 0
        assert running.process.poll() is None
