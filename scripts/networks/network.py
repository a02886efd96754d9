"""Network namespaces, one for each device, on one Ethernet with delay and loss.

Everything happens in a network and mount namespace of the laboratory's own, so no interface, route or name of the
machine is touched, and all of it is gone when the program ends. The wire is `tc netem` on veth pairs and a bridge
where the kernel has it, else a switch of our own over TAP devices; `kind` says which.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from scripts.networks.switch import Switch, Wire, open_tap

INSIDE = "KEKAHYDE_NETLAB_INSIDE"
"""Set once the program runs in its own namespaces."""
PREFIX_BITS = 16
DEFAULT_DELAY_S = 0.020
DEFAULT_LOSS = 0.01
JUMBO_BYTES_PER_S = 25e6
"""Above this rate, frames are as long as `JUMBO_MTU`: our own switch carries some ten thousand frames a second."""
JUMBO_MTU = 9000
ETHERNET_MTU = 1500


class NotPermittedError(Exception):
    """This machine does not let us make namespaces; the text says what it refused."""


def enter_own_namespaces() -> None:
    """Start this program again in namespaces of its own; raises NotPermittedError where that is refused."""
    if os.environ.get(INSIDE):
        _must("mount", "-t", "tmpfs", "none", "/run")
        _must("ip", "link", "set", "lo", "up")
        return
    flags = ["--net", "--mount"] + ([] if os.geteuid() == 0 else ["--user", "--map-root-user"])
    for tool in ("unshare", "ip"):
        if shutil.which(tool) is None:
            raise NotPermittedError(f"`{tool}` is not installed (util-linux, iproute2)")
    probe = subprocess.run(["unshare", *flags, "ip", "link"], capture_output=True, text=True, timeout=10)
    if probe.returncode:
        raise NotPermittedError(f"`unshare {' '.join(flags)}` is refused: {probe.stderr.strip()}")
    os.environ[INSIDE] = "1"
    os.execvp("unshare", ["unshare", *flags, "--propagation", "private", sys.executable, *sys.orig_argv[1:]])


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=20)


def _must(*command: str) -> None:
    result = _run(*command)
    if result.returncode:
        raise NotPermittedError(f"`{' '.join(command)}` is refused: {result.stderr.strip()}")


def has_netem() -> bool:
    """Whether this kernel can delay and lose packets by itself."""
    if shutil.which("tc") is None:
        return False
    with contextlib.suppress(subprocess.TimeoutExpired):
        if _run("tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms").returncode == 0:
            _run("tc", "qdisc", "del", "dev", "lo", "root")
            return True
    return False


@dataclass(slots=True)
class Network:
    """A number of devices on one Ethernet; a context manager. Device `i` starts with address 10.88.0.(i + 1)."""

    size: int
    delay_s: float = DEFAULT_DELAY_S
    loss: float = DEFAULT_LOSS
    seed: int = 1
    kind: str = ""
    """`netem` or `switch`; empty: the first where the kernel has it."""
    bytes_per_s: float = 0.0
    """What each device can send, and what it can take from our own switch; 0: as much as it likes."""
    hosts: list[str] = field(default_factory=list)
    switch: Switch | None = None

    def __enter__(self) -> Self:
        self.kind = self.kind or ("netem" if has_netem() else "switch")
        self.hosts = [f"10.88.0.{index + 1}" for index in range(self.size)]
        for index in range(self.size):
            _must("ip", "netns", "add", self.name(index))
        if self.kind == "netem":
            self._wire_bridge()
        else:
            devices = [self._wire_tap(index) for index in range(self.size)]
            self.switch = Switch(devices, self._first_wire, self.seed)
            self.switch.start()
        for index in range(self.size):
            self._inside(index, "link", "set", "lo", "up")
            self._address("add", index)
            self._inside(index, "link", "set", "eth0", "mtu", str(self._mtu), "up")
            # Multicast and what is not in the subnet leave by the one interface there is.
            self._inside(index, "route", "add", "default", "dev", "eth0")
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.switch is not None:
            self.switch.stop()
        for index in range(self.size):
            _run("ip", "netns", "del", self.name(index))
        if self.kind == "netem":
            for bridge in ("br0", "br1"):
                _run("ip", "link", "del", bridge)

    def name(self, index: int) -> str:
        return f"device{index}"

    def command(self, index: int, *command: str) -> list[str]:
        """A command as it is run on a device. The process that starts is the command itself."""
        return ["ip", "netns", "exec", self.name(index), *command]

    def move(self, index: int, host: str) -> None:
        """Give a device another address, as a router does after a while."""
        self._address("del", index)
        self.hosts[index] = host
        self._address("add", index)
        self._inside(index, "route", "replace", "default", "dev", "eth0")

    def only_ipv6(self) -> None:
        """Take every IPv4 address away: device `i` has fd88::(i + 1) alone, and link-local ones."""
        for index in range(self.size):
            self._address("del", index)
            self.hosts[index] = f"fd88::{index + 1:x}"
            self._inside(index, "addr", "add", f"{self.hosts[index]}/64", "dev", "eth0", "nodad")
            self._inside(index, "-6", "route", "add", "default", "dev", "eth0")

    def partition(self, away: Sequence[int]) -> None:
        """Cut these devices off from all others, but not from each other."""
        if self.switch is not None:
            self.switch.partition(away)
            return
        for index in away:
            _must("ip", "link", "set", f"port{index}", "master", "br1")

    def heal(self) -> None:
        """One Ethernet again."""
        if self.switch is not None:
            self.switch.partition(())
            return
        for index in range(self.size):
            _must("ip", "link", "set", f"port{index}", "master", "br0")

    def wire(self, wire: Wire) -> None:
        """From now on, frames of all devices fare so."""
        if self.switch is not None:
            self.switch.wire(wire)
            return
        for index in range(self.size):
            _must("tc", "-n", self.name(index), "qdisc", "change", "dev", "eth0", "root", "netem", *_limits(wire))

    def __str__(self) -> str:
        wire = "tc netem" if self.kind == "netem" else f"user-space switch, seed {self.seed}"
        rate = f", {8e-6 * self.bytes_per_s:g} Mbit/s, frames of {self._mtu} bytes" if self.bytes_per_s else ""
        return f"{self.size} namespaces, {self.delay_s * 1e3:g} ms each way, {self.loss:.1%} loss{rate} ({wire})"

    @property
    def _first_wire(self) -> Wire:
        return Wire(self.delay_s, self.loss, bytes_per_s=self.bytes_per_s)

    @property
    def _mtu(self) -> int:
        return JUMBO_MTU if self.bytes_per_s > JUMBO_BYTES_PER_S else ETHERNET_MTU

    def _address(self, verb: str, index: int) -> None:
        host = f"{self.hosts[index]}/{PREFIX_BITS}"
        self._inside(index, "addr", verb, host, *(["broadcast", "+"] if verb == "add" else []), "dev", "eth0")

    def _inside(self, index: int, *command: str) -> None:
        _must("ip", "-n", self.name(index), *command)

    def _wire_tap(self, index: int) -> int:
        device = open_tap(f"tap{index}")
        _must("ip", "link", "set", f"tap{index}", "netns", self.name(index), "name", "eth0")
        return device

    def _wire_bridge(self) -> None:
        for bridge in ("br0", "br1"):
            _must("ip", "link", "add", bridge, "type", "bridge", "mcast_snooping", "0")
            _must("ip", "link", "set", bridge, "up")
        limits = _limits(self._first_wire)
        for index in range(self.size):
            port = f"port{index}"
            _must(*f"ip link add {port} type veth peer name eth0 netns {self.name(index)}".split())
            _must("ip", "link", "set", port, "mtu", str(self._mtu), "master", "br0", "up")
            _must("tc", "-n", self.name(index), "qdisc", "add", "dev", "eth0", "root", "netem", *limits)


def _limits(wire: Wire) -> list[str]:
    """The same in the words of netem."""
    rate = ["rate", f"{8 * wire.bytes_per_s:.0f}bit"] if wire.bytes_per_s else []
    jitter = [f"{wire.jitter_s * 500:g}ms"] if wire.jitter_s else []
    delay = ["delay", f"{(wire.delay_s + wire.jitter_s / 2) * 1e3:g}ms", *jitter]
    return [*delay, "loss", f"{wire.loss * 100:g}%", *rate, "limit", "20000"]
