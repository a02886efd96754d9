"""Real `kekahyde-node` processes on the devices of a laboratory network, and what is asked of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from node.errors import KekahydeError
from node.gateway.client.client import call_node
from scripts.networks.network import Network

PROGRAM = [sys.executable, "-m", "node"]
READY_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.05
PORT = 4711


class LabError(Exception):
    """A scenario did not come to the end that it should have."""


@dataclass(slots=True)
class Device:
    """One device: its place in the network, its data directory and, while it runs, its node."""

    index: int
    network: Network
    folder: Path
    environment: dict[str, str]
    process: subprocess.Popen[str] | None = None
    peer_id: str = ""
    addresses: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        return self.network.hosts[self.index]

    @property
    def data_dir(self) -> Path:
        return self.folder

    @property
    def address(self) -> str:
        """Where others dial it."""
        return self.addresses[0]

    def start(self, *options: str, port: int = PORT, model: str = "none") -> None:
        """Start the node and wait for its ready line."""
        listen = [] if "--listen" in options else ["--listen", f"/ip4/0.0.0.0/tcp/{port}"]
        command = [*PROGRAM, "--headless", "--json", "-v", "--no-gateway", "--threads", "1", "--model", model]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                self.network.command(self.index, *command, "--data-dir", str(self.folder), *listen, *options),
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                text=True,
                env=self.environment,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise LabError(f"device {self.index} did not start: {self.log()[-600:]}")
        ready = json.loads(line)
        self.peer_id, self.addresses = ready["peer_id"], ready["addrs"]

    def call(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command of the program on this device and data directory."""
        return subprocess.run(
            self.network.command(self.index, *PROGRAM, *arguments, "--data-dir", str(self.folder)),
            capture_output=True,
            text=True,
            input=stdin,
            timeout=COMMAND_TIMEOUT_S,
            env=self.environment,
        )

    def peers(self) -> dict[str, dict[str, Any]]:
        """What `peers` says, by PeerID."""
        try:
            return {peer["peer_id"]: peer for peer in call_node(self.folder, "peers")["peers"]}
        except KekahydeError:
            return {}

    def sees(self, other: Device, state: str = "alive") -> bool:
        """Whether it holds the other for this, and has a link where that is `alive`."""
        peer = self.peers().get(other.peer_id)
        return peer is not None and peer["state"] == state and (peer["connected"] or state != "alive")

    def log(self) -> str:
        """What it wrote to stderr in all its lives."""
        return (self.folder / "log").read_text(errors="replace")

    def kill(self) -> None:
        """As a power cut does it."""
        if self.process is not None:
            self.process.kill()
            self._end()

    def stop(self) -> None:
        """Ask it to leave."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self._end()

    def _end(self) -> None:
        assert self.process is not None and self.process.stdout is not None
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.process = None


@dataclass(slots=True)
class Lab:
    """A network and a data directory for each of its devices; a context manager that cleans up."""

    network: Network
    minutes: float = 0.5
    """Of a scenario that goes on as long as it is let."""
    devices: list[Device] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    _folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="kekahyde-netlab-")))

    def __enter__(self) -> Self:
        self.network.__enter__()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("KEKAHYDE_")}
        for index in range(self.network.size):
            folder = self._folder / f"device{index}"
            folder.mkdir()
            self.devices.append(Device(index, self.network, folder, dict(environment)))
        return self

    def __exit__(self, *_exc: object) -> None:
        for device in self.devices:
            if device.process is not None:
                device.process.send_signal(signal.SIGTERM)
        for device in self.devices:
            device.stop()
        self.network.__exit__()
        shutil.rmtree(self._folder, ignore_errors=True)

    def invited(self, count: int, *options: str) -> float:
        """Start device 0, invite the others up to `count`, start them; seconds until everybody has a link to all."""
        first, others = self.devices[0], self.devices[1:count]
        first.start(*options)
        line = invitation_of(first)
        for device in others:
            must(device.call("join", line), "join")
        began = time.monotonic()
        for device in others:
            device.start(*options)
        return self.wait_mesh(self.devices[:count], began)

    def wait_mesh(self, devices: list[Device], began: float, timeout_s: float = 60.0) -> float:
        """Seconds since `began` until each of these has a link to every other."""
        for device in devices:
            for other in devices:
                if other is not device:
                    what = f"device {device.index} has no link to device {other.index}"
                    wait(lambda one=device, two=other: one.sees(two), timeout_s, what)  # type: ignore[misc]
        return time.monotonic() - began


def wait(condition: Callable[[], bool], timeout_s: float, failure: str) -> float:
    """Seconds until a condition held; raises LabError where it does not in time."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > timeout_s:
            raise LabError(f"{failure} within {timeout_s:g} s")
        time.sleep(POLL_S)
    return time.monotonic() - began


def must(result: subprocess.CompletedProcess[str], what: str) -> str:
    """What a command printed; raises LabError where it failed."""
    if result.returncode:
        raise LabError(f"{what} ended with {result.returncode}: {result.stderr.strip()[-400:]}")
    return result.stdout


def invitation_of(device: Device) -> str:
    """The last line that `invite` prints."""
    return must(device.call("invite", "--expires", "10m"), "invite").strip().splitlines()[-1]
