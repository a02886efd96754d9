"""`scripts/demo --thin`: no node holds more than 60 % of a model, the client holds nothing, and holders die.

Every command that a user would type is shown with its seconds; each answer is compared with that of one device alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import click
from rich.console import Console

from node.gateway.client.client import call_node
from scripts.harness.swarm import PROGRAM, NodeProcess, RunResult, Swarm

NUM_HOLDERS = 4
HELD = 0.6
"""Part of the model's units that each holder has memory for."""
DEADLINE_S = 120.0
KILLED_AT = {3: 0, 6: 2}
"""Token at which a holder is killed."""
ALL_KILLED_AT = 5


class FailedError(click.ClickException):
    """Something is not as it must be."""


@dataclass
class Show:
    """The commands of one user, told as they are typed, with their seconds."""

    console: Console
    swarm: Swarm
    client: NodeProcess
    started: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        self.console.print(f"[dim]{time.monotonic() - self.started:6.1f} s[/dim]  {text}", soft_wrap=True)

    def typed(self, *arguments: str, on_token: Callable[[int], None] | None = None) -> tuple[list[str], int]:
        """Lines of stdout of a command at the client's data directory, and its exit code; what it tells is shown."""
        shown = [argument if " " not in argument else repr(argument) for argument in arguments]
        self.say(f"[bold]$ kekahyde-node {' '.join(shown)}[/bold]")
        name, *rest = arguments
        process = subprocess.Popen(
            [*PROGRAM, name, "--data-dir", str(self.client.data_dir), *rest],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=self.swarm.environment,
        )
        assert process.stdout is not None and process.stderr is not None
        lines = []
        teller = threading.Thread(target=self._tell, args=(process.stderr,))
        teller.start()
        with process.stdout, process.stderr:
            for line in process.stdout:
                lines.append(line)
                event = json.loads(line)
                if event.get("type") == "token":
                    if event["index"] == 0:
                        self.say("(first token)")
                    if on_token is not None:
                        on_token(event["index"])
            teller.join()
        return lines, process.wait()

    def _tell(self, stderr: IO[str]) -> None:
        for line in stderr:
            self.say(f"   {line.rstrip()}")

    def asked(self, prompt: str, options: Sequence[str], on_token: Callable[[int], None] | None = None) -> RunResult:
        lines, code = self.typed("run", "--json", *options, prompt, on_token=on_token)
        events = [json.loads(line) for line in lines]
        receipt: dict[str, Any] = next((event for event in events if event["type"] == "receipt"), {})
        result = RunResult(code, [event for event in events if event["type"] == "token"], receipt, "")
        self.console.print(f"          [italic]{result.text.strip()}[/italic]", soft_wrap=True)
        return result

    def compare(self, result: RunResult, alone: RunResult) -> None:
        """Raises FailedError unless the two are the same text."""
        if result.token_ids != alone.token_ids:
            raise FailedError(f"{result.token_ids} is not what one device alone says: {alone.token_ids}")
        chunks, memory = result.receipt["chunks"], result.receipt["memory"]
        here, checks = (memory[key] / 2**20 for key in ("weights_here_bytes", "checks_bytes"))
        self.say(
            f"the same tokens as on one device alone; {chunks['verified']} chunks verified, "
            f"{chunks['local']} computed here with borrowed weights; "
            f"{here:.1f} MiB of weights here, {checks:.1f} MiB of checks"
        )


def paired(first: NodeProcess, second: NodeProcess) -> None:
    """Pair two nodes, as their owner would who compares the codes on both screens."""
    sides = ((first, second), (second, first))
    for here, there in sides:
        call_node(here.data_dir, "pair_start", peer=there.peer_id)
    for here, there in sides:
        _wait(partial(_code, here, there.peer_id), "both screens show a code")
        code = _code(here, there.peer_id)
        call_node(here.data_dir, "pair_confirm", peer=there.peer_id, code=code, may_read_prompts=False)
    for here, there in sides:
        _wait(partial(_is_paired, here, there.peer_id), f"{there.peer_id} is paired")


def _code(node: NodeProcess, peer_id: str) -> str | None:
    """The code of the attempt with a peer, once there is one."""
    attempts = call_node(node.data_dir, "pair_list")["attempts"]
    return next((one["code"] for one in attempts if one["peer_id"] == peer_id and one["code"]), None)


def _is_paired(node: NodeProcess, peer_id: str) -> bool:
    return any(device["peer_id"] == peer_id for device in call_node(node.data_dir, "pair_list")["devices"])


def _wait(happened: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not happened():
        if time.monotonic() > deadline:
            raise FailedError(f"it did not happen within {DEADLINE_S:.0f} s that {what}")
        time.sleep(0.05)


def _has_its_layers(node: NodeProcess) -> bool:
    jobs = call_node(node.data_dir, "transfers")["transfers"]
    return bool(jobs) and jobs[0]["state"] == "done"


def show(console: Console, swarm: Swarm, prompt: str, options: Sequence[str]) -> None:
    """All of it.

    Args:
        swarm: one that has not started a node, with its model.
        options: of every `run`.
    """
    swarm.start(1)
    (seed,) = swarm.nodes
    console.print("[bold]1.[/bold] one node has the whole model; what it says alone is what all others must say")
    told = swarm.run(prompt, [*options, "--privacy", "local"], alone=True)
    if told.returncode:
        raise FailedError(told.narration)
    console.print(f"   [italic]{told.text.strip()}[/italic]", soft_wrap=True)
    model_id, size = told.receipt["model_id"], told.receipt["memory"]["weights_here_bytes"]
    console.print(
        f"[bold]2.[/bold] {NUM_HOLDERS} nodes take layers of it from that node, each at most {HELD:.0%} "
        f"of {size / 2**20:.1f} MiB"
    )
    swarm.model, swarm.models = model_id, None
    memory = str(int(HELD * size))
    for _ in range(NUM_HOLDERS):
        swarm.start(1, options=["--memory", memory, *swarm.bootstrap([0])])
        node = swarm.nodes[-1]
        _wait(partial(_has_its_layers, node), "a node has its layers")
        (job,) = call_node(node.data_dir, "transfers")["transfers"]
        console.print(f"   {job['total_bytes'] / size:.0%}  {node.address}", soft_wrap=True)
    holders = swarm.nodes[1:]
    console.print("[bold]3.[/bold] a client that keeps nothing of what is lent")
    swarm.model = "none"
    swarm.start(1, options=["--lend", "all", *swarm.bootstrap([1, 2, 3, 4])])
    user = Show(console, swarm, swarm.nodes[-1])
    _wait(lambda: _knows(user.client, [seed, *holders]), "the client knows all nodes")
    _lines, code = user.typed("pull", model_id, "--thin", "--lend", "all", "--json")
    if code:
        raise FailedError("the model was not pulled")
    asked = ["--model", model_id, *options]
    user.compare(user.asked(prompt, [*asked, "--privacy", "split"]), told)
    seed.stop()
    user.say("[bold]the node that had the whole model has left[/bold]")
    user.compare(user.asked(prompt, [*asked, "--privacy", "split"]), told)
    for device in holders[:2]:
        paired(user.client, device)
    user.say("[bold]two of the nodes are paired now: they make the pads of strict, the others get the shares[/bold]")
    user.compare(user.asked(prompt, [*asked, "--privacy", "strict"]), told)
    console.print("[bold]4.[/bold] two of four holders are killed in the middle of an answer")
    user.compare(user.asked(prompt, [*asked, "--privacy", "split"], _killer(user, holders)), told)
    console.print("[bold]5.[/bold] both come back; then all four are killed")
    for node in holders:
        if node.process.poll() is not None:
            swarm.restart(node, options=["--model", model_id, "--memory", memory, *swarm.bootstrap([2, 4])])
            _wait(partial(_has_its_layers, node), "a node has its layers again")
    _wait(partial(_knows, user.client, holders), "the client knows all nodes")
    rest = user.asked(prompt, [*asked, "--privacy", "split"], _killer_of_all(user, holders))
    if rest.returncode != 1 or rest.receipt["finish_reason"] != "error":
        raise FailedError(f"it ended as {rest.receipt['finish_reason']}, with exit code {rest.returncode}")
    if rest.token_ids != told.token_ids[: len(rest.tokens)]:
        raise FailedError("the text so far is not the beginning of the answer")
    user.say(f"it ended with {len(rest.tokens)} tokens, finish_reason error and exit code 1, and said why")


def _knows(client: NodeProcess, nodes: Sequence[NodeProcess]) -> bool:
    known = {peer["peer_id"] for peer in call_node(client.data_dir, "peers")["peers"] if peer["connected"]}
    return known >= {node.peer_id for node in nodes}


def _killer(user: Show, holders: Sequence[NodeProcess]) -> Callable[[int], None]:
    def kill(index: int) -> None:
        if index in KILLED_AT:
            holders[KILLED_AT[index]].kill()
            user.say(f"[bold]token {index}: a holder is killed[/bold]")

    return kill


def _killer_of_all(user: Show, holders: Sequence[NodeProcess]) -> Callable[[int], None]:
    def kill(index: int) -> None:
        if index == ALL_KILLED_AT:
            for node in holders:
                if node.process.poll() is None:
                    node.kill()
            user.say(f"[bold]token {index}: nobody is left[/bold]")

    return kill


def main(prompt: str, options: Sequence[str], models: Path | None, model: str) -> None:
    """The scenario, on a swarm of its own."""
    console = Console(stderr=True, highlight=False)
    with Swarm(model=model, models=models) as swarm:
        try:
            show(console, swarm, prompt, options)
        except FailedError as exc:
            console.print(f"[bold]failed[/bold]: {exc.message}")
            sys.exit(1)
