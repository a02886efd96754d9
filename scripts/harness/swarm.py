"""Real node processes on loopback, each with its own data directory, started and ended by this program alone.

Used by `scripts/swarm`, the benchmarks and the tests. It ends processes by the pid it started them under and removes
the temporary directory it made; it touches nothing else.
"""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

from scripts.harness.forked import ForkedProcess
from scripts.harness.programs import environment, program
from scripts.harness.real_models import link_models

PROGRAM = [sys.executable, "-m", "node"]
HOSTILE = program("scripts.harness.hostile_node")
JUMPING_CLOCK = program("scripts.harness.jumping_clock")
REAL = (PROGRAM, JUMPING_CLOCK)
"""Programs that take all options of a node."""
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0

OnToken = Callable[[int], None]
OnText = Callable[[str], None]


class StartError(Exception):
    """A node that did not come up, and what it said."""


class StuckError(Exception):
    """A node that was asked to leave and did not, and what it said."""


@dataclass(slots=True)
class NodeProcess:
    """A node that runs: its process and what its ready line said."""

    process: subprocess.Popen[str]
    data_dir: Path
    peer_id: str = ""
    address: str = ""
    gateway: str = ""

    def wait_ready(self) -> None:
        """Read the ready line; raises StartError with what the node said instead."""
        assert self.process.stdout is not None
        timer = threading.Timer(READY_TIMEOUT_S, self.process.kill)
        timer.start()
        try:
            line = self.process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise StartError(f"node {self.data_dir.name} did not start: {self.narration()}")
        ready = json.loads(line)
        self.peer_id = ready["peer_id"]
        self.address = ready["addrs"][0] if ready["addrs"] else ""
        self.gateway = ready.get("gateway") or ""

    def narration(self) -> str:
        """What it wrote to stderr."""
        return (self.data_dir / "stderr.txt").read_text(errors="replace")

    def kill(self) -> None:
        """End it at once, as a power cut does."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Stop it without closing its connections, as a laptop lid does."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """Ask it to leave; the exit code. Raises StuckError (and it is killed) where it does not go."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired as exc:
                self.kill()
                told = self.narration()
                raise StuckError(f"{self.data_dir.name} did not leave in {STOP_TIMEOUT_S} s: {told}") from exc
        if self.process.stdout is not None:
            self.process.stdout.close()
        return self.process.returncode


@dataclass(slots=True)
class RunResult:
    """What `kekahyde-node run --json` said."""

    returncode: int
    tokens: list[dict[str, Any]]
    receipt: dict[str, Any]
    narration: str

    @property
    def token_ids(self) -> list[int]:
        return [token["id"] for token in self.tokens]

    @property
    def text(self) -> str:
        return str(self.receipt.get("text", ""))


@dataclass(slots=True)
class Swarm:
    """A number of nodes; a context manager that cleans up what it started."""

    model: str = "story"
    threads: int = 1
    nodes: list[NodeProcess] = field(default_factory=list)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="kekahyde-swarm-")))
    env: dict[str, str] = field(default_factory=dict)
    key: str = field(default_factory=lambda: secrets.token_hex(32))
    """The swarm's key: every process of it gets it by its environment."""
    lend: str = "layers"
    """What its nodes and runs lend, unless their options say otherwise: counts must not depend on the planner."""
    models: Path | None = None
    """Models that every data directory has from the start."""

    @property
    def environment(self) -> dict[str, str]:
        """What every process of this swarm sees."""
        return {**environment(), "KEKAHYDE_SWARM_KEY": self.key, **self.env}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        for node in self.nodes:
            if node.process.poll() is None:
                node.process.send_signal(signal.SIGCONT)
                node.process.terminate()
        stuck = []
        for node in self.nodes:
            try:
                node.stop()
            except StuckError as exc:
                stuck.append(exc)
        shutil.rmtree(self.folder, ignore_errors=True)
        if stuck:
            raise stuck[0]

    def start(
        self,
        count: int,
        faults: Mapping[int, Sequence[str]] | None = None,
        options: Sequence[str] = (),
        hostile: Sequence[str] = HOSTILE,
        prepare: Callable[[Path], None] = lambda data_dir: None,
    ) -> None:
        """Start `count` nodes side by side and wait until all are ready.

        Args:
            faults: options of `hostile` for the nodes (by index) that are to misbehave.
            hostile: the program that misbehaves, with the options of a node.
            prepare: puts into a new data directory what the node is to find there.
        """
        started = [self._spawn((faults or {}).get(index), options, hostile, prepare) for index in range(count)]
        for node in started:
            node.wait_ready()

    def restart(
        self,
        node: NodeProcess,
        moved: bool = False,
        options: Sequence[str] = (),
        command: Sequence[str] = PROGRAM,
    ) -> None:
        """Start a node that has ended again, with its key and at its address (or, `moved`, at another one), perhaps
        as another program, and wait until it is ready."""
        node.stop()
        listen, _, _ = node.address.partition("/p2p/")
        node.process = self._process(node.data_dir, command, [*([] if moved else ["--listen", listen]), *options])
        node.wait_ready()

    def process(self, data_dir: Path, options: Sequence[str] = ()) -> subprocess.Popen[str]:
        """A process on a data directory that the caller made and whose end it sees to."""
        return self._process(data_dir, PROGRAM, options)

    def _spawn(
        self,
        fault: Sequence[str] | None,
        options: Sequence[str],
        hostile: Sequence[str],
        prepare: Callable[[Path], None],
    ) -> NodeProcess:
        data_dir = self.folder / f"node{len(self.nodes)}"
        self._make(data_dir)
        prepare(data_dir)
        command = PROGRAM if fault is None else [*hostile, *fault]
        node = NodeProcess(self._process(data_dir, command, options), data_dir)
        self.nodes.append(node)
        return node

    def _make(self, data_dir: Path) -> None:
        data_dir.mkdir(parents=True)
        if self.models is not None:
            link_models(self.models, data_dir)

    def _process(self, data_dir: Path, command: Sequence[str], options: Sequence[str]) -> subprocess.Popen[str]:
        own = ["--lend", self.lend, "--name", data_dir.name] if command in REAL else []
        with (data_dir / "stderr.txt").open("a") as narration:
            return ForkedProcess(
                [*command, "-v", "--json", "--headless", *self._common(data_dir), *own, *options],
                self.environment,
                stdout=subprocess.PIPE,
                stderr=narration,
                stdin=subprocess.DEVNULL,
            )

    def _common(self, data_dir: Path) -> list[str]:
        return ["--data-dir", str(data_dir), "--model", self.model, "--threads", str(self.threads)]

    def bootstrap(self, indices: Sequence[int] | None = None) -> list[str]:
        """Options that make a run know these nodes (all of them by default), in this order."""
        chosen = self.nodes if indices is None else [self.nodes[index] for index in indices]
        return [part for node in chosen if node.address for part in ("--bootstrap", node.address)]

    def run(
        self,
        prompt: str,
        options: Sequence[str] = (),
        on_token: OnToken | None = None,
        alone: bool = False,
        on_text: OnText | None = None,
        peers: Sequence[int] | None = None,
        limit_s: float | None = None,
    ) -> RunResult:
        """Run a prompt to its end; `on_token(index)` and `on_text(text)` are called as each token line arrives.

        Args:
            alone: without any peer.
            peers: indices of the nodes that the run is told of; all of them by default.
            limit_s: seconds after which it is killed; what it had said by then is returned, without a receipt.
        """
        data_dir = self.folder / "client"
        if not data_dir.exists():
            self._make(data_dir)
        bootstrap = [] if alone else self.bootstrap(peers)
        lend = ["--lend", self.lend, "--speculate", "off"]  # counts of passes must not depend on the planner either
        command = [*PROGRAM, "run", "--json", *self._common(data_dir), *lend, *bootstrap, *options, "--", prompt]
        with (data_dir / "stderr.txt").open("w+") as narration:
            process = ForkedProcess(
                command, self.environment, stdout=subprocess.PIPE, stderr=narration, stdin=subprocess.DEVNULL
            )
            timer = threading.Timer(limit_s or threading.TIMEOUT_MAX, process.kill)
            timer.start()
            try:
                tokens, receipt = _read_events(process, on_token, on_text)
                returncode = process.wait()
            finally:
                timer.cancel()
            narration.seek(0)
            return RunResult(returncode, tokens, receipt, narration.read())


def _read_events(
    process: subprocess.Popen[str], on_token: OnToken | None, on_text: OnText | None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    tokens: list[dict[str, Any]] = []
    receipt: dict[str, Any] = {}
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            event = json.loads(line)
            if event["type"] == "receipt":
                receipt = event
                continue
            tokens.append(event)
            if on_token is not None:
                on_token(event["index"])
            if on_text is not None:
                on_text(event["text"])
    return tokens, receipt


class LaneWatch:
    """Which lane works hardest: a session pairs nodes in the order of their addresses, 2i with 2i + 1."""

    def __init__(self, nodes: Sequence[NodeProcess]) -> None:
        self._nodes = list(nodes)
        self._before = self._cpu_s()

    def busiest(self) -> tuple[int, int]:
        """Indices of the pad and the share node of the lane that used most processor time since the start."""
        spent = [now - before for now, before in zip(self._cpu_s(), self._before, strict=True)]
        starts = range(0, len(spent) - 1, 2)
        start = max(starts, key=lambda index: spent[index] + spent[index + 1])
        return start, start + 1

    def _cpu_s(self) -> list[float]:
        times = [psutil.Process(node.process.pid).cpu_times() for node in self._nodes]
        return [time.user + time.system for time in times]
