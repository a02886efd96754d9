"""A node between many bridges names the address that others can use, in a network namespace of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from node.discovery.interfaces import own_hosts

NAMESPACE = ["unshare", "--net", "--mount", "--propagation", "private"]
SET_UP = """
set -e
mount -t sysfs sysfs /sys
ip link set lo up
for number in $(seq 17 $1); do
  ip link add docker$number type bridge
  ip address add 172.$number.0.1/16 dev docker$number
  ip link set docker$number up
done
ip link add vpn0 type veth peer name far0
ip address add 10.9.0.2/24 dev vpn0
ip link set vpn0 up
ip link set far0 up
shift
exec "$@"
"""
INVITE = """
import subprocess, sys
program, data_dir = [sys.executable, "-m", "node"], sys.argv[1]
listen = ["--listen", "/ip4/0.0.0.0/tcp/4711", "--no-mdns", "--until-stdin-ends"]
serving = [*program, "--headless", "--json", "--threads", "1", "--data-dir", data_dir, *listen]
node = subprocess.Popen(serving, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
try:
    assert node.stdout.readline(), "it is ready"
    print(subprocess.run([*program, "invite", "--json", "--data-dir", data_dir], stdout=-1, text=True).stdout)
finally:
    node.communicate(timeout=30)
"""


def needs_namespaces() -> None:
    try:
        probe = subprocess.run(
            [*NAMESPACE, "bash", "-c", SET_UP, "-", "17", "true"], capture_output=True, text=True, timeout=30
        )
    except FileNotFoundError as exc:
        pytest.skip(f"no namespaces here: {exc}")
    if probe.returncode != 0:
        pytest.skip(f"no namespaces here: {probe.stderr.strip()}")


def among_bridges(last: int, *arguments: str) -> str:
    command = [*NAMESPACE, "bash", "-c", SET_UP, "-", str(last), sys.executable, "-c", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.swarm
@pytest.mark.parametrize("last", [pytest.param(21, marks=pytest.mark.long), 26])
def test_an_invitation_holds_the_address_of_the_vpn_and_says_what_it_leaves_out(tmp_path: Path, last: int) -> None:
    needs_namespaces()
    written = json.loads(among_bridges(last, INVITE, str(tmp_path)))
    bridges = [f"172.{number}.0.1" for number in range(17, last + 1)]
    hosts = [address.split("/")[2] for address in written["addrs"]]
    assert hosts == ["10.9.0.2", *bridges][:8]
    if len(bridges) < 8:
        assert written["note"] is None
    else:
        assert all(host in written["note"] for host in bridges[7:]) and "--announce" in written["note"]


def test_the_interface_of_the_default_route_is_first_even_where_it_is_a_bridge() -> None:
    needs_namespaces()
    show = "from node.discovery.interfaces import own_hosts; print(*own_hosts('ip4'))"
    with_route = f"import subprocess; subprocess.run('ip route add default dev docker18'.split(), check=True); {show}"
    assert among_bridges(18, with_route).split() == ["172.18.0.1", "10.9.0.2", "172.17.0.1", "127.0.0.1"]


def test_a_host_is_named_once_and_loopback_last() -> None:
    for protocol in ("ip4", "ip6"):
        hosts = own_hosts(protocol)
        assert len(hosts) == len(set(hosts)) and not any("%" in host for host in hosts)
        assert {"127.0.0.1", "::1"}.isdisjoint(hosts[:-1])
