"""A node that crashes leaves nothing of what it knows on the disk, even where the system asks for cores."""

from __future__ import annotations

import json
import os
import resource
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.swarm,
    pytest.mark.skipif(not Path("/proc/self/coredump_filter").exists(), reason="cores of Linux"),
]
PATTERN = Path("/proc/sys/kernel/core_pattern")
LIMIT_S = 30.0


def cores_are_wanted() -> None:
    """In the child: as `ulimit -c unlimited` of the shell that starts it, as far as this test itself may."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


class Crashing:
    """A process in a folder of its own, where the kernel would put its core."""

    def __init__(self, folder: Path, *command: str) -> None:
        self.folder = folder
        folder.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=folder,
            preexec_fn=cores_are_wanted,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()

    def crash(self, how: signal.Signals) -> list[bytes]:
        """The cores that are left of it."""
        self.process.send_signal(how)
        self.process.communicate(timeout=LIMIT_S)
        assert self.process.returncode == -how
        return [path.read_bytes() for path in self.folder.iterdir() if path.name.startswith("core")]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Crashing]:
    options = ["--headless", "--json", "--threads", "1", "--no-mdns", "--data-dir", str(tmp_path / "data")]
    node = Crashing(tmp_path / "node", "-m", "node", *options, "--listen", "/ip4/127.0.0.1/tcp/0")
    assert json.loads(node.first_line)["type"] == "ready"
    yield node
    node.process.kill()
    node.process.communicate()


@pytest.fixture
def where_cores_are_files(tmp_path: Path) -> None:
    """Here a process that does not forbid it leaves one."""
    if PATTERN.read_text().strip() != "core" or resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("this system puts cores elsewhere, or permits none")
    other = Crashing(tmp_path / "other", "-c", "print('ready', flush=True); import time; time.sleep(60)")
    assert other.crash(signal.SIGABRT), "without our measures there is a core"


@pytest.mark.usefixtures("where_cores_are_files")
@pytest.mark.parametrize("how", [pytest.param(signal.SIGABRT, marks=pytest.mark.long), signal.SIGSEGV])
def test_a_node_that_crashes_leaves_no_core(node: Crashing, how: signal.Signals) -> None:
    assert node.crash(how) == []


PROGRAM = """
import resource, time
from node.process.core_dumps import forbid_core_dumps
resource.setrlimit = lambda *_: None  # as where the system pipes cores: the limit does not count
if {forbids}:
    forbid_core_dumps()
secret = bytes(byte ^ 0x5A for byte in bytes.fromhex("{masked}"))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.usefixtures("where_cores_are_files")
@pytest.mark.parametrize("forbids", [False, True])
def test_a_core_that_is_taken_all_the_same_holds_no_memory(tmp_path: Path, forbids: bool) -> None:
    secret = secrets.token_bytes(32)
    program = PROGRAM.format(forbids=forbids, masked=bytes(byte ^ 0x5A for byte in secret).hex())
    (core,) = Crashing(tmp_path / "program", "-c", program).crash(signal.SIGABRT)
    assert core.startswith(b"\x7fELF")
    assert (secret in core) is not forbids


def test_the_limits_are_those_that_spec_names(node: Crashing) -> None:
    assert resource.prlimit(node.process.pid, resource.RLIMIT_CORE) == (0, 0)
    assert int(Path(f"/proc/{node.process.pid}/coredump_filter").read_text(), 16) == 0
