"""A process that may open few files says so, and one that has used them up goes on."""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from waiting import until

from node.process.descriptors import NEEDED
from protocol.identity import Identity
from scripts.attacks.raw_zmtp import DoorShutError
from scripts.attacks.target import Attacker, Target
from scripts.harness.swarm import Swarm
from scripts.soaking.pressure import few_descriptors

pytestmark = pytest.mark.swarm

LIMIT_S = 30.0


def limited(soft: int, hard: int) -> Callable[[], None]:
    """For the child alone, before it becomes the program; and no core of a child that aborts."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    return limit


def start(limit: Callable[[], None], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "node", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )


@pytest.mark.parametrize(
    "most", [36, *(pytest.param(most, marks=pytest.mark.long) for most in (40, 44, 64)), NEEDED - 1]
)
@pytest.mark.parametrize("command", [["--headless", "--json"], ["run", "--privacy", "local", "Once"]])
def test_too_few_are_refused_in_one_line(tmp_path: Path, most: int, command: list[str]) -> None:
    with start(limited(most, most), *command, "--data-dir", str(tmp_path)) as process:
        out, narration = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out) == (1, ""), narration
    assert narration.startswith(f"error: this process may open {most} files") and narration.count("\n") == 1
    assert f"needs {NEEDED}" in narration and "ulimit -Hn" in narration


class Started:
    """A node that may open as few files as it needs at least."""

    def __init__(self, data_dir: Path, limit: Callable[[], None]) -> None:
        options = ["--headless", "--json", "--data-dir", str(data_dir), "--threads", "1", "--no-mdns"]
        self.process = start(limit, *options, "--listen", "/ip4/127.0.0.1/tcp/0")
        assert self.process.stdout is not None
        ready = json.loads(self.process.stdout.readline())
        self.gateway = str(ready["gateway"])
        self.port = int(ready["addrs"][0].split("/")[4])

    @property
    def num_open(self) -> int:
        return psutil.Process(self.process.pid).num_fds()

    def is_well(self) -> bool:
        try:
            with urllib.request.urlopen(self.gateway + "/health", timeout=LIMIT_S) as answer:
                return bool(json.load(answer)["status"] == "ok")
        except (OSError, urllib.error.URLError):
            return False

    def stop(self) -> tuple[int, str]:
        self.process.terminate()
        _, narration = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, narration


@pytest.fixture
def few(tmp_path: Path) -> Iterator[Started]:
    node = Started(tmp_path, limited(NEEDED, NEEDED))
    yield node
    node.process.kill()
    node.process.communicate()


def test_a_low_soft_limit_is_raised(tmp_path: Path) -> None:
    node = Started(tmp_path, limited(64, 4096))
    try:
        assert psutil.Process(node.process.pid).rlimit(psutil.RLIMIT_NOFILE) == (4096, 4096)
    finally:
        assert node.stop()[0] == 0


def test_a_node_whose_descriptors_run_out_goes_on(few: Started) -> None:
    """Connections to both doors until nothing is left; when they go, everything is as before."""
    at_rest = few.num_open
    gateway = int(few.gateway.rpartition(":")[2])
    crowd: list[socket.socket] = []
    try:
        for port in (few.port, gateway):
            for _ in range(NEEDED):
                crowd.append(socket.socket())
                crowd[-1].setblocking(False)  # those beyond the last descriptor wait in the queue of the kernel
                crowd[-1].connect_ex(("127.0.0.1", port))
        until(lambda: few.num_open >= NEEDED - 2, "all descriptors are taken", LIMIT_S)
        assert few.process.poll() is None
    finally:
        for connection in crowd:
            connection.close()
    until(few.is_well, "it answers again", LIMIT_S)
    until(lambda: few.num_open <= at_rest + 4, "and holds nothing of it", LIMIT_S)
    returncode, narration = few.stop()
    assert returncode == 0, narration


def test_a_member_is_let_in_only_while_libzmq_can_accept_it() -> None:
    """Found by a soak: libzmq aborts a process that has no descriptor for a connection over a Unix socket."""
    with Swarm() as swarm:
        swarm.start(1)
        node = swarm.nodes[0]
        target = Target.of(node)
        member = Attacker(Identity.from_seed(bytes(31) + b"m"), bytes.fromhex(swarm.key))
        with few_descriptors(node.process.pid):
            for port in target.ports:
                with pytest.raises((DoorShutError, OSError)), target.dealer(port, member):
                    pass
        assert node.process.poll() is None
        for port in target.ports:
            with target.dealer(port, member):
                pass
