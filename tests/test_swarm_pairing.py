"""Two devices of one owner, as real processes: paired by six digits, used for pads and plain rows, and unpaired."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from waiting import until

from node.gateway.client.client import call_node
from scripts.harness.swarm import PROGRAM, NodeProcess, RunResult, Swarm

pytestmark = pytest.mark.swarm

PROMPT = "Once upon a time, there was a little fox who"
TOKENS = 16
SAMPLING = ["--ignore-eos", "--max-tokens", str(TOKENS), "--temperature", "0.8", "--seed", "11"]
WAIT_S = 30.0


@dataclass
class Cli:
    """A `kekahyde-node` command at one node's data directory."""

    swarm: Swarm
    node: NodeProcess

    def command(self, *arguments: str) -> list[str]:
        name, *rest = arguments
        return [*PROGRAM, name, "--data-dir", str(self.node.data_dir), *rest]

    def call(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = self.command(*arguments)
        environment = self.swarm.environment
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=90, env=environment)

    def open(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.swarm.environment,
        )

    def listing(self) -> dict[str, Any]:
        """What the running node says; what its file says is for `pair --list`."""
        return call_node(self.node.data_dir, "pair_list")

    def answer(self, privacy: str) -> RunResult:
        """The answer of the node that runs there, asked by command."""
        result = self.call("run", "--json", *SAMPLING, "--privacy", privacy, "--", PROMPT)
        assert result.returncode == 0, result.stderr
        *tokens, receipt = [json.loads(line) for line in result.stdout.splitlines()]
        return RunResult(0, tokens, receipt, result.stderr)


def code_on(screen: subprocess.Popen[str]) -> str:
    """What a pairing command shows."""
    assert screen.stdout is not None
    shown = re.fullmatch(r"code (\d{3}) (\d{3})\n", screen.stdout.readline())
    assert shown is not None, screen.communicate()
    return "".join(shown.groups())


def pair_by_hand(first: Cli, second: Cli, asks: str, answer: tuple[str, ...] = ()) -> str:
    """Both owners compare the codes and say yes; the code that both screens showed."""
    one, other = first.open("pair", asks), second.open("pair", *answer)
    if not answer:
        assert other.stdin is not None
        other.stdin.write("y\n")  # yes to whoever asks
        other.stdin.flush()
    codes = code_on(one), code_on(other)
    assert codes[0] == codes[1]
    for screen in (one, other):
        assert screen.stdin is not None
        screen.stdin.write("y\n")
        screen.stdin.flush()
    outcomes = [screen.communicate(timeout=WAIT_S) for screen in (one, other)]
    assert one.returncode == other.returncode == 0, outcomes
    assert f"paired with {second.node.peer_id}" in outcomes[0][0]
    assert f"paired with {first.node.peer_id}" in outcomes[1][0]
    return codes[0]


def test_pair_goes_on_where_an_earlier_one_stopped_waiting() -> None:
    """An owner who confirmed, and then did not wait for the other one, is not asked again."""
    with Swarm(model="none") as swarm:
        swarm.start(2)
        first, second = Cli(swarm, swarm.nodes[0]), Cli(swarm, swarm.nodes[1])
        with first.open("pair", second.node.address) as early:
            until(lambda: second.listing()["attempts"], "the second device is asked")
            call_node(second.node.data_dir, "pair_start", peer=first.node.peer_id)
            code = code_on(early)
            assert early.stdin is not None
            early.stdin.write("y\n")
            early.stdin.flush()
            until(lambda: first.listing()["attempts"][0]["state"] == "confirmed here", "the first owner said yes")
            early.kill()
        with first.open("pair", second.node.peer_id) as again:
            assert again.stderr is not None and "already confirmed here" in again.stderr.readline()
            call_node(
                second.node.data_dir, "pair_confirm", peer=first.node.peer_id, code=code, may_read_prompts=False
            )
            out, err = again.communicate(timeout=WAIT_S)
        assert (again.returncode, out) == (0, f"paired with {second.node.peer_id}\n"), err


def test_owners_compare_codes_and_either_may_take_the_pairing_back() -> None:
    with Swarm(model="none") as swarm:
        swarm.start(2)
        first, second = Cli(swarm, swarm.nodes[0]), Cli(swarm, swarm.nodes[1])
        here, there = first.node.peer_id, second.node.peer_id

        # Another code than the one on this screen: nobody is paired, on either side.
        waiting = first.open("pair", second.node.address)
        until(lambda: first.listing()["attempts"], "the first device asks")
        wrong = second.call("pair", here, "--confirm", "no code")
        assert wrong.returncode == 1 and "another code was seen at this device" in wrong.stderr
        out, err = waiting.communicate("y\n", timeout=WAIT_S)
        assert waiting.returncode == 1 and "paired with" not in out and "the other device" in err
        assert first.listing()["devices"] == second.listing()["devices"] == []

        # The same code, read off the list and given to both commands.
        pair_by_hand(first, second, second.node.address)
        devices = json.loads(first.call("pair", "--list", "--json").stdout)["devices"]
        assert [(one["peer_id"], one["may_read_prompts"], one["connected"]) for one in devices] == [
            (there, False, True)
        ]
        peers = json.loads(first.call("peers", "--json").stdout)["peers"]
        assert [peer["peer_id"] for peer in peers if peer.get("paired", True)] == [there]

        # Taken back while the other device is away: it hears of it when it is back.
        second.node.stop()
        assert first.call("unpair", there).returncode == 0 and first.listing()["devices"] == []
        assert first.call("unpair", there).returncode == 1
        assert second.call("name", here, "desk").returncode == 0
        listed = second.call("pair", "--list").stdout
        assert f"{here}  paired" in listed and listed.endswith("  desk\n"), "its files, while no node runs"
        assert second.call("pair", here, "--may-read-prompts", stdin="y\n").returncode == 0
        paired_file = second.node.data_dir / "paired.json"
        untouched = paired_file.read_text()

        # A file that somebody changed is no file: the node says which one, and does not start.
        paired_file.write_text(untouched.replace('"pairing": "', '"pairing": "00'))
        refused = second.call("run", "--max-tokens", "1", "--model", "story", "x")
        assert refused.returncode == 1 and str(paired_file) in refused.stderr and "Traceback" not in refused.stderr
        paired_file.write_text(untouched)


@pytest.fixture(scope="module")
def home() -> Iterator[tuple[Cli, Cli, Cli]]:
    """A client, its paired device and a stranger, in one swarm."""
    with Swarm() as swarm:
        swarm.start(2)
        swarm.start(1, options=swarm.bootstrap())
        device, stranger, client = (Cli(swarm, node) for node in swarm.nodes)
        pair_by_hand(client, device, device.node.peer_id, (client.node.peer_id,))
        yield client, device, stranger


@pytest.fixture(scope="module")
def alone(home: tuple[Cli, Cli, Cli]) -> RunResult:
    """The answer of the client alone."""
    result = home[0].answer("local")
    assert len(result.tokens) == TOKENS and result.receipt["could_read"] == []
    return result


def test_a_paired_device_makes_the_pads_of_strict(home: tuple[Cli, Cli, Cli], alone: RunResult) -> None:
    client, device, stranger = home
    result = client.answer("strict")
    receipt = result.receipt
    assert result.token_ids == alone.token_ids and result.text == alone.text
    assert receipt["mode"] == "strict" and receipt["could_read"] == []
    roles = {peer["peer_id"]: (peer["role"], peer["chunks"] > 0) for peer in receipt["peers"]}
    assert roles == {device.node.peer_id: ("pad", True), stranger.node.peer_id: ("share", True)}
    assert receipt["pads"]["paired_rows"] > 0 and receipt["chunks"]["rejected"] == 0
    assert receipt["chunks"]["verified"] > 0.7 * receipt["chunks"]["merged"]


def test_a_thin_client_has_its_pads_made_by_its_paired_device(home: tuple[Cli, Cli, Cli], alone: RunResult) -> None:
    """It holds no weights to make them with; nobody else gets a pad, and the maker gets no share."""
    _client, device, stranger = home
    swarm, model_id = device.swarm, alone.receipt["model_id"]
    swarm.start(1, options=["--model", "none", "--memory", "1KiB", "--lend", "all", *swarm.bootstrap([0, 1])])
    thin = Cli(swarm, swarm.nodes[-1])
    pair_by_hand(thin, device, device.node.peer_id, (thin.node.peer_id,))
    assert thin.call("pull", model_id, "--thin").returncode == 0
    done = thin.call("run", "--json", "--model", model_id, *SAMPLING, "--privacy", "strict", "--", PROMPT)
    *tokens, receipt = [json.loads(line) for line in done.stdout.splitlines()]
    assert [token["id"] for token in tokens] == alone.token_ids, done.stderr
    roles = {peer["peer_id"]: peer["role"] for peer in receipt["peers"] if peer["chunks"]}
    assert (
        roles.pop(device.node.peer_id) == "pad"
        and set(roles.values()) == {"share"}
        and stranger.node.peer_id in roles
    )
    assert receipt["mode"] == "strict" and receipt["memory"]["weights_here_bytes"] == 0
    assert receipt["chunks"]["local"] == 0 < receipt["pads"]["paired_rows"] and receipt["pads"]["rows"] == 0


def test_trusted_needs_the_users_word_and_names_who_could_read(home: tuple[Cli, Cli, Cli], alone: RunResult) -> None:
    client, device, _stranger = home
    before = client.answer("trusted")
    assert before.receipt["mode"] == "local" and before.receipt["asked"] == "trusted"
    assert "--may-read-prompts" in before.receipt["note"] and before.receipt["peers"] == []
    assert before.token_ids == alone.token_ids

    no = client.call("pair", device.node.peer_id, "--may-read-prompts", stdin="n\n")
    assert no.returncode == 1 and "This device can read your prompt" in no.stderr
    yes = client.call("pair", device.node.peer_id, "--may-read-prompts", stdin="y\n")
    assert yes.returncode == 0 and "may read prompts" in yes.stdout

    result = client.answer("trusted")
    receipt = result.receipt
    assert result.token_ids == alone.token_ids and result.text == alone.text
    assert receipt["mode"] == "trusted" and receipt["could_read"] == [device.node.peer_id]
    assert [(peer["peer_id"], peer["role"]) for peer in receipt["peers"]] == [(device.node.peer_id, "plain")]
    assert [span["peer_id"] for span in receipt["spans"]] == [device.node.peer_id]
    assert receipt["pads"]["rows"] == receipt["pads"]["paired_rows"] == 0

    auto = client.answer("auto")
    assert auto.token_ids == alone.token_ids
    assert_used_only_if_faster(auto.receipt, device.node.peer_id)

    assert client.call("pair", device.node.peer_id, "--may-not-read-prompts").returncode == 0
    after = client.answer("trusted")
    assert after.receipt["mode"] == "local" and after.token_ids == alone.token_ids


def assert_used_only_if_faster(receipt: dict[str, Any], device: str) -> None:
    """Which of the two is faster, this machine decides anew in every run: the receipt must agree with its plan."""
    if receipt["mode"] == "trusted":
        plan = receipt["plan"]
        away_s = plan["ttft_s"] + (TOKENS - 1) / plan["tokens_per_s"]
        here_s = plan["here_ttft_s"] + (TOKENS - 1) / plan["here_tokens_per_s"]
        assert away_s < here_s and receipt["could_read"] == [device]
    else:
        assert "through your own devices: they are not used" in receipt["note"]
        assert receipt["could_read"] == receipt["spans"] == []


def test_who_is_not_paired_gets_and_gives_no_plain_rows(home: tuple[Cli, Cli, Cli], alone: RunResult) -> None:
    """A stranger's client that asks the paired device, in trusted mode, computes for itself."""
    _client, _device, stranger = home
    result = stranger.answer("trusted")
    assert result.receipt["mode"] == "local" and result.receipt["peers"] == []
    assert result.token_ids == alone.token_ids


def test_a_paired_device_that_is_gone_is_missed_by_nobody(home: tuple[Cli, Cli, Cli], alone: RunResult) -> None:
    """Revoked at the other device: the client hears of it at once, and makes its pads itself."""
    client, device, _stranger = home
    assert device.call("unpair", client.node.peer_id).returncode == 0
    until(lambda: client.listing()["devices"] == [], "the other side's word arrives")
    result = client.answer("strict")
    assert result.token_ids == alone.token_ids
    assert {peer["role"] for peer in result.receipt["peers"]} == {"share"}
    assert result.receipt["pads"]["paired_rows"] == 0 and result.receipt["pads"]["rows"] > 0
