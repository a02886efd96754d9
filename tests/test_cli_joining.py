"""`invite`, `join` and `doctor` as commands: lines, exit codes, secrets that stay secret, and the next step."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from waiting import until

from node.gateway.client.client import call_node
from protocol.finding.invitation import Invitation, format_invitation
from protocol.identity import Identity
from protocol.multiaddr import Multiaddr
from scripts.harness import forked
from scripts.harness.swarm import NodeProcess

PROGRAM = [sys.executable, "-m", "node"]
PEER = Identity.from_seed(bytes(32)).peer_id
KEY = bytes(range(32))
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "KEKAHYDE_SWARM_KEY"}


def call(data_dir: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, *arguments, "--data-dir", str(data_dir)]
    return forked.run(command, ENVIRONMENT, stdin)


def line(expires_in_s: float = 3600.0) -> str:
    address = Multiaddr("ip4", "192.168.7.20", 4711, PEER)
    return format_invitation(Invitation((address,), int(time.time() + expires_in_s), KEY))


def failed(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """One line on stderr with these words, and nothing of the key."""
    assert result.returncode == 1, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and result.stderr.startswith("error: "), result.stderr
    for word in words:
        assert word in result.stderr, (word, result.stderr)
    assert KEY.hex() not in result.stderr + result.stdout


def test_join_keeps_the_key_for_this_user_alone(tmp_path: Path) -> None:
    result = call(tmp_path / "new", "join", "-", "--json", stdin=f"\n  {line()} \n")
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["addrs"] == [f"/ip4/192.168.7.20/tcp/4711/p2p/{PEER}"] and not facts["open"]
    path = tmp_path / "new" / "swarm.key"
    assert path.read_text().strip() == KEY.hex() and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KEY.hex() not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (line(-60), ["expired", "kekahyde-node invite"]),
        (line()[:-4], ["damaged", "copy the whole line"]),
        (line().replace(":1:", ":9:"), ["version 9", "update"]),
        ("hello", ["not an invitation"]),
        ("-", ["not an invitation"]),
    ],
)
def test_what_is_no_invitation_names_the_next_step(tmp_path: Path, text: str, words: list[str]) -> None:
    failed(call(tmp_path, "join", text), *words)
    assert not (tmp_path / "swarm.key").exists()


def test_invite_needs_a_swarm_and_an_address(tmp_path: Path) -> None:
    failed(call(tmp_path, "invite"), "not in a swarm yet")
    refused = call(tmp_path, "invite", "--expires", "soon")
    assert refused.returncode == 2 and "24h" in refused.stderr


def test_a_member_invites_while_its_node_is_off(tmp_path: Path) -> None:
    assert call(tmp_path, "join", line()).returncode == 0
    result = call(tmp_path, "invite", "--qr", "--expires", "7d")
    assert result.returncode == 0, result.stderr
    again = result.stdout.strip().splitlines()[-1]
    assert again.startswith("kekahyde:1:")
    assert "\N{FULL BLOCK}" in result.stderr, "the QR code goes to stderr"
    assert KEY.hex() not in result.stderr
    joined = call(tmp_path / "other", "join", again)
    assert joined.returncode == 0 and "joined the swarm" in joined.stdout


def test_doctor_finds_what_is_wrong_with_a_directory(tmp_path: Path) -> None:
    assert call(tmp_path, "join", line()).returncode == 0
    fresh = call(tmp_path, "doctor")
    assert fresh.returncode == 0 and "nothing is broken" in fresh.stderr, fresh.stdout
    (tmp_path / "swarm.key").chmod(0o644)
    (tmp_path / "identity.key").write_bytes(b"short")
    (tmp_path / "identity.key").chmod(0o600)
    result = call(tmp_path, "doctor", "--json", "--listen", "/ip4/203.0.113.7/tcp/4711")
    report = json.loads(result.stdout)
    assert result.returncode == 1 and report["broken"]
    wrong = {finding["check"]: finding for finding in report["findings"] if finding["level"] == "broken"}
    assert set(wrong) == {"keys", "identity", "port"}
    assert wrong["keys"]["next_step"].startswith(f"chmod 600 {tmp_path / 'swarm.key'}")
    assert all(finding["next_step"] for finding in wrong.values())
    seen = {finding["check"] for finding in report["findings"]}
    assert {"disk", "clock", "kernels", "compiler", "swarm", "node"} <= seen


@pytest.mark.parametrize("name", ["guards.json", "paired.json", "access.json", "gateway.token"])
def test_a_damaged_file_is_named_by_the_doctor_and_by_the_start(tmp_path: Path, name: str) -> None:
    assert call(tmp_path, "run", "--max-tokens", "1", "x").returncode == 0
    (tmp_path / name).write_bytes(b"\xff\xfe no text")
    (tmp_path / name).chmod(0o600)
    report = json.loads(call(tmp_path, "doctor", "--json").stdout)
    assert report["broken"] and name in str([one for one in report["findings"] if one["level"] == "broken"])
    start = call(tmp_path, "--headless", "--no-mdns")
    failed(start, name)
    assert "Traceback" not in start.stderr and "\\x" not in start.stderr


def test_a_lost_key_makes_no_other_swarm(tmp_path: Path) -> None:
    assert call(tmp_path, "join", line()).returncode == 0
    (tmp_path / "swarm.key").unlink()
    before = (tmp_path / "swarm.json").read_text()
    failed(call(tmp_path, "--headless", "--no-mdns"), "swarm.key is missing", "invitation")
    assert (tmp_path / "swarm.json").read_text() == before and not (tmp_path / "swarm.key").exists()
    assert "swarm.key is missing" in call(tmp_path, "doctor").stdout
    assert call(tmp_path, "join", line()).returncode == 0
    assert call(tmp_path, "doctor").returncode == 0


@contextmanager
def node(data_dir: Path, *options: str) -> Iterator[NodeProcess]:
    """A node that gets its swarm from its directory alone."""
    data_dir.mkdir(exist_ok=True)
    with (data_dir / "stderr.txt").open("w") as narration:
        process = subprocess.Popen(
            [
                *PROGRAM,
                "--headless",
                "--json",
                "--no-gateway",
                "--threads",
                "1",
                "--data-dir",
                str(data_dir),
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=narration,
            text=True,
            env=ENVIRONMENT,
        )
    started = NodeProcess(process, data_dir)
    try:
        started.wait_ready()
        yield started
    finally:
        started.stop()


@pytest.mark.swarm
def test_who_was_invited_is_in(tmp_path: Path) -> None:
    """The contract: `join LINE` exits 0, and the next start of that directory is in."""
    home, guest = tmp_path / "home", tmp_path / "guest"
    with node(home) as host:
        invited = call(home, "invite", "--no-qr")
        assert invited.returncode == 0 and "only on this device" in invited.stderr, invited.stderr
        text = invited.stdout.strip().splitlines()[-1]
        failed(call(home, "join", text[:-1]), "damaged")
        assert call(guest, "join", text).returncode == 0
        with node(guest) as other:
            deadline = time.monotonic() + 20
            for directory, expected in ((home, other.peer_id), (guest, host.peer_id)):
                while (peers := peers_of(directory)) != {expected: "alive"}:
                    assert time.monotonic() < deadline, (directory, peers)
                    time.sleep(0.1)
            report = json.loads(call(guest, "doctor", "--json").stdout)
            findings = {finding["check"]: finding for finding in report["findings"]}
            assert not report["broken"], report
            assert host.peer_id in findings["peer"]["text"] and findings["peer"]["level"] == "ok"
            assert findings["clock of peers"]["level"] == "ok"


@pytest.mark.long
@pytest.mark.swarm
def test_a_node_that_runs_joins_and_starts_again_in_the_other_swarm(tmp_path: Path) -> None:
    """A newcomer tries the program first, and gets the invitation afterwards, broken by a mail."""
    home, guest = tmp_path / "home", tmp_path / "guest"
    with node(home) as host, node(guest) as other:
        text = call(home, "invite", "--no-qr").stdout.strip().splitlines()[-1]
        broken = f"kekahyde-node join '{text[:40]}\n  {text[40:]}'\nSee you there!"
        joined = call(guest, "join", broken)
        assert joined.returncode == 0 and "starts again in it" in joined.stderr, joined.stderr
        deadline = time.monotonic() + 20
        while (peers := peers_of(home)) != {other.peer_id: "alive"}:
            assert time.monotonic() < deadline, peers
            time.sleep(0.1)
        assert peers_of(guest) == {host.peer_id: "alive"}
        assert other.process.poll() is None, "it is the same process"


@pytest.mark.long
@pytest.mark.swarm
def test_an_invitation_that_leads_nowhere_is_broken_and_says_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = Multiaddr("ip4", "127.0.0.1", taken.getsockname()[1], PEER)
    text = format_invitation(Invitation((nobody,), int(time.time() + 3600), KEY))
    assert call(tmp_path, "join", text).returncode == 0
    with node(tmp_path):

        def findings() -> dict[str, dict[str, str]]:
            report = json.loads(call(tmp_path, "doctor", "--json").stdout)
            return {finding["check"]: finding for finding in report["findings"] if report["broken"]}

        until(lambda: "swarm" in findings(), "the doctor finds that no address leads to a member")
        assert "none of the 1 known addresses" in findings()["swarm"]["text"]
        assert "--announce" in findings()["swarm"]["next_step"]


@pytest.mark.long
@pytest.mark.swarm
def test_a_node_that_lends_more_than_it_may_use_is_told(tmp_path: Path) -> None:
    with node(tmp_path, "--memory", "1000TiB"):
        findings = {finding["check"]: finding for finding in call_node(tmp_path, "doctor")["findings"]}
    assert findings["memory"]["level"] == "broken" and "--memory" in findings["memory"]["next_step"]


def peers_of(data_dir: Path) -> dict[str, str]:
    """State of each peer that the node has a link to."""
    return {peer["peer_id"]: peer["state"] for peer in call_node(data_dir, "peers")["peers"] if peer["connected"]}


def test_a_device_does_not_join_its_own_invitation_and_is_never_its_own_peer(tmp_path: Path) -> None:
    """Found by a newcomer: the node counted itself as a guard of its own prompts."""
    data_dir = tmp_path / "own"
    with node(data_dir) as running:
        own = call(data_dir, "invite", "--no-qr").stdout.strip().splitlines()[-1]
        failed(call(data_dir, "join", own), "this device made this invitation", "another device")
        peer_id, _, address = running.peer_id, None, running.address
    failed(call(data_dir, "join", own), "this device made this invitation")
    listen = address.partition("/p2p/")[0]
    with node(data_dir, "--listen", listen, "--bootstrap", f"{listen}/p2p/{peer_id}"):
        other = tmp_path / "other"
        assert call(other, "join", own).returncode == 0
        with node(other, "--listen", "/ip4/127.0.0.1/tcp/0") as guest:
            until(lambda: connected_of(data_dir) == {guest.peer_id}, "it has one peer, and not itself")
            until(lambda: connected_of(other) == {peer_id}, "and so has the other")


def connected_of(data_dir: Path) -> set[str]:
    return {peer["peer_id"] for peer in call_node(data_dir, "peers")["peers"] if peer["connected"]}
