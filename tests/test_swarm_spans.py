"""A model through the user's own devices: real processes, each with a share of the layers or all of them.

The text must be that of one device alone, whatever happens to the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from test_swarm_pairing import Cli
from test_swarm_thin import parts_are_served
from waiting import until

from node.gateway.client.client import call_node
from node.gateway.client.generating import generate_on_node
from scripts.harness.owner import pair
from scripts.harness.swarm import HOSTILE, NodeProcess, Swarm

pytestmark = pytest.mark.swarm

PROMPT = "Once upon a time, there was a little fox who"
TOKENS = 40
LAYERS = 6
"""Of the built-in model."""


def ask(
    client: NodeProcess, privacy: str, at: int = -1, then: Callable[[], None] = lambda: None, **asked: Any
) -> tuple[list[int], dict[str, Any], list[str]]:
    """Tokens, receipt and notes of an answer; `then` is called when token `at` has come."""
    tokens, notes = [], []
    sampling = {"max_tokens": TOKENS, "ignore_eos": True, "temperature": 0.8, "seed": 11}
    for event in generate_on_node(client.data_dir, privacy=privacy, **{"prompt": PROMPT, **sampling, **asked}):
        if event["event"] == "token":
            tokens.append(event["id"])
            if len(tokens) == at:
                then()
        elif event["event"] == "note":
            notes.append(event["text"])
        elif event["event"] == "receipt":
            return tokens, event["receipt"], notes
    raise AssertionError("no receipt")


def layers_by(receipt: dict[str, Any]) -> list[tuple[str | None, int, int]]:
    return [(span["peer_id"], span["first"], span["end"]) for span in receipt["spans"]]


def owned(swarm: Swarm, count: int, *options: str) -> NodeProcess:
    """Starts devices and a client of one owner; the client is returned, the devices come before it."""
    swarm.start(count)
    swarm.start(1, options=[*options, *swarm.bootstrap()])
    *devices, client = swarm.nodes
    for device in devices:
        pair(client, device)
    return client


@pytest.fixture
def home() -> Iterator[tuple[NodeProcess, NodeProcess, NodeProcess]]:
    """A client and two devices that hold the whole model."""
    with Swarm() as swarm:
        client = owned(swarm, 2)
        yield client, swarm.nodes[0], swarm.nodes[1]


def used(receipt: dict[str, Any], devices: tuple[NodeProcess, ...]) -> NodeProcess:
    """The device that computed all layers."""
    ((peer_id, first, end),) = layers_by(receipt)
    assert (first, end) == (0, LAYERS)
    return next(device for device in devices if device.peer_id == peer_id)


def test_layers_go_through_an_own_device_and_the_next_turn_sends_only_what_is_new(
    home: tuple[NodeProcess, NodeProcess, NodeProcess],
) -> None:
    client, *devices = home
    alone, _, _ = ask(client, "local")
    tokens, receipt, _ = ask(client, "trusted")
    device = used(receipt, tuple(devices))
    assert tokens == alone
    assert (receipt["mode"], receipt["could_read"]) == ("trusted", [device.peer_id])
    assert receipt["placement"] == dict.fromkeys(("qkv", "o", "gate_up", "down"), "lent") | {"head": "here"}
    assert receipt["rechecked"]["rows"] == receipt["prompt_tokens"] + TOKENS - 1
    assert sum(peer["chunks"] for peer in receipt["peers"]) == TOKENS, "one exchange a token, one for the prompt"

    longer = PROMPT + receipt["text"]
    again, of_alone = ask(client, "trusted", prompt=longer), ask(client, "local", prompt=longer)
    assert again[0] == of_alone[0]
    assert again[1]["cached_tokens"] > receipt["prompt_tokens"]
    assert again[1]["bytes"]["up"] < receipt["bytes"]["up"]


def test_a_device_is_killed_then_another_freezes_and_the_text_stays(
    home: tuple[NodeProcess, NodeProcess, NodeProcess],
) -> None:
    client, *devices = home
    alone, _, _ = ask(client, "local")
    first = used(ask(client, "trusted")[1], tuple(devices))
    other = next(device for device in devices if device is not first)
    paused: list[float] = []

    tokens, receipt, notes = ask(client, "trusted", 10, first.kill)
    assert tokens == alone
    assert layers_by(receipt) == [(other.peer_id, 0, LAYERS)], notes
    assert any("layers 0-5" in note for note in notes), notes

    def freeze() -> None:
        other.freeze()
        paused.append(time.monotonic())

    tokens, receipt, notes = ask(client, "trusted", 10, freeze)
    assert tokens == alone
    assert layers_by(receipt) == [(None, 0, LAYERS)] and any("silent" in note for note in notes)
    assert time.monotonic() - paused[0] < 20, "it waits four seconds for a frozen device"


@pytest.mark.parametrize(
    ("fault", "share", "tries"), [("lie-bit", "1", 1), ("lie-once", "1", 1), ("lie-bit", "0.05", 40)]
)
def test_a_liar_is_found_and_banned_and_the_text_stays(fault: str, share: str, tries: int) -> None:
    """With a share of 1 no wrong result is used. Else the first 32 rows of a text are followed on average, so that a
    liar is found in every second text or so; in 40 it is missed with a chance of less than 10^-9."""
    with Swarm() as swarm:
        client = owned(swarm, 1, "--recheck", share)
        liar = swarm.nodes[0]
        liar.stop()
        swarm.restart(liar, command=[*HOSTILE, "--fault", fault, "--after", "12"])
        until(lambda: is_linked(client, liar), "the device is back")
        for number in range(tries):
            prompt = f"{PROMPT} was {number} years old"
            alone, _, _ = ask(client, "local", prompt=prompt)
            tokens, receipt, notes = ask(client, "trusted", prompt=prompt)
            assert tokens == alone
            if bans := call_node(client.data_dir, "access")["entries"]:
                break
        assert [entry["peer_id"] for entry in bans] == [liar.peer_id], receipt["rechecked"]
        if share == "1":  # else it may be found after the answer
            assert layers_by(receipt) == [(None, 0, LAYERS)], notes
            assert [(peer["peer_id"], peer["status"]) for peer in receipt["peers"]] == [(liar.peer_id, "banned")]


def test_two_answers_of_a_liar_are_both_put_right() -> None:
    """It lies to both after a while; what was shown is compared, and both go on without it."""
    with Swarm() as swarm:
        client = owned(swarm, 1, "--recheck", "0.999999")
        liar = swarm.nodes[0]
        liar.stop()
        swarm.restart(liar, command=[*HOSTILE, "--fault", "lie-bit", "--after", "40"])
        until(lambda: is_linked(client, liar), "the device is back")
        prompts = [f"{PROMPT} was {number} years old" for number in (3, 7)]
        alone = [ask(client, "local", prompt=prompt, max_tokens=150)[0] for prompt in prompts]
        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(ask, client, "trusted", prompt=prompt, max_tokens=150) for prompt in prompts]
            answers = [one.result() for one in asked]
        assert [tokens for tokens, _, _ in answers] == alone
        until(lambda: bool(call_node(client.data_dir, "access")["entries"]), "the liar was not found")
        assert [entry["peer_id"] for entry in call_node(client.data_dir, "access")["entries"]] == [liar.peer_id]


def test_devices_with_other_instructions_give_the_same_bits() -> None:
    """Every result is compared with this device's own, whose instructions are the fastest."""
    with Swarm() as swarm:
        for level in ("c-generic", "c-avx2"):
            swarm.env["KEKAHYDE_KERNELS"] = level
            swarm.start(1)
        del swarm.env["KEKAHYDE_KERNELS"]
        swarm.start(1, options=["--recheck", "1", *swarm.bootstrap()])
        *devices, client = swarm.nodes
        for device in devices:
            pair(client, device)
        alone, _, _ = ask(client, "local")
        seen = set()
        for _ in devices:
            tokens, receipt, _ = ask(client, "trusted")
            seen.add(used(receipt, tuple(devices)).peer_id)
            assert tokens == alone
            assert receipt["rechecked"]["equal"] == receipt["rechecked"]["rows"] > TOKENS
            used(receipt, tuple(devices)).stop()
        assert seen == {device.peer_id for device in devices}


def test_a_model_that_no_device_holds_whole() -> None:
    """The client has embedding and head, each device some of the layers."""
    with Swarm() as swarm:
        swarm.start(1)
        source = swarm.nodes[0]
        alone, receipt, _ = ask(source, "local")
        model_id, size = receipt["model_id"], receipt["memory"]["weights_here_bytes"]
        for _ in range(2):
            share = ["--model", model_id, "--memory", str(int(0.62 * size))]
            swarm.start(1, options=[*share, *swarm.bootstrap([0])])
            until(lambda: parts_are_served(swarm.nodes[-1]), "its layers are served")
        swarm.start(1, options=["--model", "none", "--memory", "1KiB", *swarm.bootstrap()])
        _, *devices, client = swarm.nodes
        for device in devices:
            pair(client, device)
            folder = device.data_dir / "models" / ".partial" / model_id
            until((folder / "client.safetensors").exists, "it fetches the norms now that it is paired")
        assert Cli(swarm, client).call("pull", model_id, "--thin", "--lend", "layers").returncode == 0
        source.stop()
        tokens, receipt, notes = ask(client, "trusted", model=model_id)
        assert tokens == alone, notes
        assert len(layers_by(receipt)) >= 2 and None not in dict.fromkeys(by for by, _, _ in layers_by(receipt))
        straight = sum(span["direct"] for span in receipt["spans"])
        assert straight > TOKENS // 2, "but for the prompt and a few at first"
        assert receipt["rechecked"] | {"rows": 0} == {"rows": 0, "equal": 0, "wrong": 0, "elsewhere": 0, "differ": 0}


def test_what_an_own_device_does_not_hold_others_compute_in_split() -> None:
    """`auto` of a client without weights: the own device may read, the others get padded rows alone. When the device
    is killed, its layers go to the others too."""
    with Swarm() as swarm:
        swarm.start(2)
        source = swarm.nodes[0]
        alone, receipt, _ = ask(source, "local")
        model_id, size = receipt["model_id"], receipt["memory"]["weights_here_bytes"]
        swarm.start(1, options=["--model", model_id, "--memory", str(int(0.62 * size)), *swarm.bootstrap([0])])
        own = swarm.nodes[-1]
        until(lambda: parts_are_served(own), "its layers are served")
        swarm.start(1, options=["--model", "none", "--memory", "1KiB", *swarm.bootstrap()])
        client = swarm.nodes[-1]
        pair(client, own)
        floats = own.data_dir / "models" / ".partial" / model_id / "client.safetensors"
        until(floats.exists, "it fetches the norms now that it is paired")
        assert Cli(swarm, client).call("pull", model_id, "--thin", "--lend", "layers").returncode == 0

        tokens, receipt, notes = ask(client, "auto", model=model_id)
        assert tokens == alone, notes
        assert (receipt["mode"], receipt["asked"], receipt["could_read"]) == ("trusted", "auto", [own.peer_id])
        by = {(span["peer_id"], span["lent"]) for span in receipt["spans"]}
        assert by == {(own.peer_id, ""), (None, "split")}
        left_out = sum(span["end"] - span["first"] for span in receipt["spans"] if span["lent"])
        assert 0 < left_out < LAYERS and receipt["chunks"]["verified"] >= 4 * left_out * TOKENS
        strangers = {node.peer_id for node in swarm.nodes[:2]}
        roles = {peer["role"] for peer in receipt["peers"] if peer["peer_id"] in strangers and peer["chunks"]}
        assert roles == {"pad", "share"}

        tokens, receipt, notes = ask(client, "auto", 10, own.kill, model=model_id)
        assert tokens == alone, notes
        assert {(span["peer_id"], span["lent"]) for span in receipt["spans"]} == {(None, "split")}
        tokens, receipt, notes = ask(client, "split", model=model_id)
        assert tokens == alone and (receipt["mode"], receipt["could_read"]) == ("split", []), notes


@pytest.mark.parametrize("lies", [pytest.param(False, marks=pytest.mark.long), True])
def test_another_device_computes_again_what_a_thin_client_cannot(lies: bool) -> None:
    """Three devices hold all layers; with the one that lies another is left, and the third computes the answer."""
    with Swarm() as swarm:
        swarm.start(3)
        swarm.start(1, options=["--model", "none", "--recheck", "1", *swarm.bootstrap()])
        *devices, client = swarm.nodes
        for device in devices:
            pair(client, device)
        alone, receipt, _ = ask(devices[1], "local")
        model_id = receipt["model_id"]
        assert Cli(swarm, client).call("pull", model_id, "--thin", "--lend", "layers").returncode == 0
        if lies:
            devices[0].stop()
            swarm.restart(devices[0], command=[*HOSTILE, "--fault", "lie-bit", "--after", "5"])
            until(lambda: is_linked(client, devices[0]), "the device is back")
        told: list[str] = []
        for _ in range(1 if not lies else 6):
            tokens, receipt, notes = ask(client, "trusted", model=model_id)
            told += notes
            assert tokens == alone, notes
            again = receipt["rechecked"]
            assert again["elsewhere"] == again["equal"] + again["differ"] and not again["wrong"]
            if lies and again["differ"]:
                break
        if not lies:
            assert again["equal"] == again["rows"] > TOKENS
            return
        assert again["differ"] and any("cannot tell which is wrong" in note for note in told), (again, told)
        doubted = {peer["peer_id"] for peer in receipt["peers"] if peer["status"] == "doubted"}
        assert devices[0].peer_id in doubted
        assert call_node(client.data_dir, "access")["entries"] == [], "nobody is banned"


def is_linked(client: NodeProcess, device: NodeProcess) -> bool:
    listed = call_node(client.data_dir, "pair_list")["devices"]
    return any(one["peer_id"] == device.peer_id and one["connected"] for one in listed)
