"""Whole swarms of real processes: whatever happens to the peers, the answer is that of this device alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from scripts.harness.swarm import RunResult, Swarm
from scripts.scenarios.swarm import Blow

pytestmark = pytest.mark.swarm

PROMPT = "Once upon a time, there was a little fox who"
TOKENS = 64
SAMPLING = ["--ignore-eos", "--max-tokens", str(TOKENS), "--temperature", "0.8", "--seed", "11"]
UNITS_A_TOKEN = 24
"""Linear layers of the built-in model: 6 layers of 4 units."""


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    """Four honest nodes for the tests that leave them as they are."""
    with Swarm() as swarm:
        swarm.start(4)
        yield swarm


@pytest.fixture(scope="module")
def alone(swarm: Swarm) -> RunResult:
    """The answer of this device alone."""
    result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "local"], alone=True)
    assert result.returncode == 0 and len(result.tokens) == TOKENS
    return result


def check(result: RunResult, alone: RunResult) -> None:
    """What holds for every answer, whatever happened."""
    assert result.returncode == 0, result.narration
    assert result.token_ids == alone.token_ids
    assert result.text == alone.text == "".join(token["text"] for token in result.tokens)
    receipt, chunks = result.receipt, result.receipt["chunks"]
    assert receipt["tokens"] == TOKENS and receipt["finish_reason"] == "length"
    assert chunks["merged"] == chunks["verified"] + chunks["local"]
    assert chunks["merged"] >= TOKENS * UNITS_A_TOKEN
    assert chunks["hedged"] <= chunks["local"]
    roles: dict[str, str] = {}
    for peer in receipt["peers"]:
        assert roles.setdefault(peer["peer_id"], peer["role"]) == peer["role"], "a peer in both roles"


def test_split_over_four_nodes(swarm: Swarm, alone: RunResult) -> None:
    result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "split"])
    check(result, alone)
    receipt, chunks = result.receipt, result.receipt["chunks"]
    assert receipt["mode"] == "split"
    assert chunks["rejected"] == 0
    assert sorted(peer["role"] for peer in receipt["peers"]) == ["pad", "pad", "share", "share"]
    assert sum(peer["chunks"] > 0 for peer in receipt["peers"]) >= 2
    assert chunks["verified"] > 0.7 * chunks["merged"], "a busy machine may hedge a few, not many"
    assert receipt["bytes"]["up"] > 0 and receipt["bytes"]["down"] > 0


@pytest.mark.parametrize("pad_rows", [pytest.param(0, marks=pytest.mark.long), 80])
def test_strict_over_four_nodes(swarm: Swarm, alone: RunResult, pad_rows: int) -> None:
    result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "strict", "--pad-rows", str(pad_rows)])
    check(result, alone)
    assert result.receipt["mode"] == "strict"
    assert {peer["role"] for peer in result.receipt["peers"]} == {"share"}
    assert result.receipt["pads"]["rows"] >= UNITS_A_TOKEN * max(pad_rows, TOKENS)
    assert (result.receipt["pads"]["seconds"] > 0) == (pad_rows > 0)
    assert result.receipt["chunks"]["verified"] > 0.7 * result.receipt["chunks"]["merged"]


def test_auto_stays_here_where_that_is_faster_and_says_why(swarm: Swarm) -> None:
    """The small model is: a token takes 24 exchanges away and a millisecond here. One sentence, both figures."""
    short = ["--max-tokens", "4", "--seed", "1"]
    receipt = swarm.run(PROMPT, short).receipt
    assert receipt["mode"] == "local" and receipt["asked"] == "auto"
    assert "on this device alone" in receipt["note"] and "in split over 2 lanes" in receipt["note"]
    assert receipt["plan"]["mode"] == "local" and receipt["plan"]["tokens_per_s"] > 0
    assert swarm.run(PROMPT, short, alone=True).receipt["mode"] == "local"


def test_a_plan_is_told_before_and_is_in_the_receipt(swarm: Swarm) -> None:
    result = swarm.run(PROMPT, ["--max-tokens", "8", "--seed", "1", "--privacy", "split"])
    plan = result.receipt["plan"]
    assert (plan["mode"], plan["lanes"], plan["exchanges_per_token"]) == ("split", 2, UNITS_A_TOKEN)
    assert plan["here_tokens_per_s"] > plan["tokens_per_s"] > 0
    assert "plan: split over 2 lanes, first token in" in result.narration


def test_one_lane_is_enough_and_the_rest_stays_out(swarm: Swarm, alone: RunResult) -> None:
    result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "split", "--lanes", "1"])
    check(result, alone)
    used = [peer["peer_id"] for peer in result.receipt["peers"]]
    assert used == [node.peer_id for node in swarm.nodes[:2]]


def test_too_few_peers_means_local_and_says_so(swarm: Swarm, alone: RunResult) -> None:
    result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "split"], peers=[0])
    check(result, alone)
    assert result.receipt["mode"] == "local" and result.receipt["asked"] == "split"
    assert "needs 2 peers" in result.receipt["note"] and "needs 2 peers" in result.narration


def test_nothing_of_the_prompt_is_narrated(swarm: Swarm) -> None:
    secret = "zebra quagmire xylophone"
    result = swarm.run(secret, ["--max-tokens", "4", "--privacy", "split", "-vv"])
    assert result.returncode == 0
    told = [result.narration, *(node.narration() for node in swarm.nodes)]
    assert not any(word in text for text in told for word in secret.split())


@pytest.mark.parametrize(
    ("scenario", "victims"),
    [
        ("kill", "one"),
        ("freeze", "lane"),
        pytest.param("kill", "all", marks=pytest.mark.long),
        ("freeze", "all"),
    ],
)
def test_peers_that_vanish_in_the_middle(scenario: str, victims: str, alone: RunResult) -> None:
    """One guard or both of the lane at work, or all four nodes, are gone upon token 16 of 64: same text, complete."""
    with Swarm() as swarm:
        swarm.start(4)
        result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "split"], Blow(swarm, scenario, victims, 16))
        check(result, alone)
        chunks = result.receipt["chunks"]
        assert chunks["verified"] >= 16 * UNITS_A_TOKEN, "the first tokens were computed by peers"
        marks = Counter(peer["status"] for peer in result.receipt["peers"] if peer["chunks"])
        if scenario == "kill":
            used = sum(marks.values())  # a short prompt may have gone to the faster lane alone
            assert used >= 2 and marks["lost"] == {"one": 1, "lane": 2, "all": used}[victims]
        else:
            assert chunks["hedged"] > 0 and marks["suspended"] > 0
        if victims == "all":
            assert chunks["local"] >= (TOKENS - 16) * UNITS_A_TOKEN / 2
        else:
            assert chunks["verified"] > chunks["local"], "the other lane went on"


def test_a_missing_guard_is_not_replaced_by_whom_the_user_kept_apart(swarm: Swarm, alone: RunResult) -> None:
    """Named: (gone, b) and (c, d). The lane is (c, d), never (b, c); and the receipt says that a place is empty."""
    gone = ["--bootstrap", "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB"]
    named = [*gone, *swarm.bootstrap([1, 2, 3])]
    result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "split", *named], alone=True)
    check(result, alone)
    used = [(peer["peer_id"], peer["role"]) for peer in result.receipt["peers"]]
    assert used == [(swarm.nodes[2].peer_id, "pad"), (swarm.nodes[3].peer_id, "share")]
    assert "1 of 4 places" in result.receipt["note"]


def test_slow_peers_cost_time_and_nothing_else(alone: RunResult) -> None:
    with Swarm() as swarm:
        slow = ["--fault", "slow", "--after", "40", "--delay", "0.4"]
        swarm.start(2, {0: slow, 1: slow})
        result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "split"])
        check(result, alone)
        assert result.receipt["chunks"]["hedged"] > 0


LIES = ("lie-bit", "lie-row", "lie-replay", "lie-other", "lie-range", "lie-digest")


def test_liars_are_caught_banned_and_done_without(alone: RunResult) -> None:
    """Every kind of lie, from either role in split and in strict: caught at the first result, and never shows."""
    with Swarm() as swarm:
        faults = {index: ["--fault", lie, "--after", "100"] for index, lie in enumerate(LIES)}
        swarm.start(len(LIES) + 1, faults)
        honest = len(LIES)
        for index, lie in enumerate(LIES):
            role = "share" if index % 2 == 0 else "pad"
            pair = [honest, index] if role == "share" else [index, honest]
            result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "split"], peers=pair)
            check(result, alone)
            liar = next(p for p in result.receipt["peers"] if p["peer_id"] == swarm.nodes[index].peer_id)
            assert (liar["role"], liar["rejected"], liar["status"]) == (role, 1, "banned"), (lie, result.receipt)
            assert result.receipt["chunks"]["rejected"] == 1
            assert result.receipt["chunks"]["verified"] > 0 and result.receipt["chunks"]["local"] > 0
        result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "strict"], peers=[honest, 0])
        check(result, alone)
        used = [peer["peer_id"] for peer in result.receipt["peers"]]
        assert used == [swarm.nodes[honest].peer_id], "who was caught once is kept out the next time"


@pytest.mark.long
def test_a_liar_under_new_keys_costs_one_chunk_each_time(alone: RunResult) -> None:
    """A member who is banned can make a new identity: the ban does not know it, and the gate needs not."""
    lives = 3
    with Swarm() as swarm:
        swarm.start(1 + lives, {life: ["--fault", "lie-bit"] for life in range(1, 1 + lives)})
        for life in range(1, 1 + lives):
            mode = "strict" if life == 1 else "split"
            result = swarm.run(PROMPT, [*SAMPLING, "--privacy", mode], peers=[0, life])
            check(result, alone)
            by_id = {peer["peer_id"]: peer for peer in result.receipt["peers"]}
            liar = by_id[swarm.nodes[life].peer_id]
            assert (liar["rejected"], liar["status"]) == (1, "banned")
            assert result.receipt["chunks"]["rejected"] == 1
        result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "strict"])
        check(result, alone)
        assert [peer["peer_id"] for peer in result.receipt["peers"]] == [swarm.nodes[0].peer_id]


def test_a_rejected_chunk_is_redone_by_another_peer_in_strict(alone: RunResult) -> None:
    """One liar, one honest peer: the same share goes to the other.

    A peer that seems four times as slow as the other is sent nothing of a short prompt: asked again then.
    """
    with Swarm() as swarm:
        swarm.start(2, {0: ["--fault", "lie-bit"]})
        for _ in range(4):
            result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "strict"])
            check(result, alone)
            chunks = result.receipt["chunks"]
            liar = next(peer for peer in result.receipt["peers"] if peer["peer_id"] == swarm.nodes[0].peer_id)
            if liar["chunks"] or liar["rejected"]:
                break
        assert chunks["rejected"] == 1 and chunks["local"] == chunks["hedged"], "redone by a peer, not here"


def test_a_node_that_only_dials_out_serves_too(alone: RunResult) -> None:
    """The client listens, the workers dial it, and the requests go the other way."""
    port = free_port()
    with Swarm() as client_home:
        client = client_home.run("x", ["--max-tokens", "1", "--privacy", "local"], alone=True)
        assert client.returncode == 0
        address = f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer_id_of(client_home)}"
        client_home.start(2, options=["--listen", "none", "--bootstrap", address])
        assert all(node.address == "" for node in client_home.nodes)
        listen = ["--listen", f"/ip4/127.0.0.1/tcp/{port}", "--min-peers", "2", "--peer-timeout", "20"]
        result = client_home.run(PROMPT, [*SAMPLING, "--privacy", "split", *listen], alone=True)
        check(result, alone)
        assert result.receipt["mode"] == "split"
        assert result.receipt["chunks"]["verified"] > 0.7 * result.receipt["chunks"]["merged"]


def free_port() -> int:
    """A port that was free a moment ago, for the one test that must know an address beforehand."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def peer_id_of(swarm: Swarm) -> str:
    """PeerID of the swarm's client, whose data directory a first run has made."""
    from node.paths import DataDir

    return str(DataDir.open(swarm.folder / "client").identity().peer_id)
