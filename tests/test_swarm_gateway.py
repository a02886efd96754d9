"""The gateway of a node in a swarm of real processes: same tokens in any company, and an end that peers notice."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import aiohttp
import openai
import pytest

from scripts.harness.swarm import PROGRAM, NodeProcess, Swarm

pytestmark = pytest.mark.swarm

PROMPTS = ["Once upon a time", "The cat sat on", "One day a fox met " * 12, "A dog and a bird"]
CANCEL_LIMIT_S = 0.2


@dataclass
class Client:
    """A serving node that knows four others, and who they are."""

    swarm: Swarm
    node: NodeProcess
    api: openai.OpenAI

    def complete(self, prompt: str, privacy: str, **more: Any) -> Any:
        extra = {"privacy": privacy, "ignore_eos": True, **more.pop("extra_body", {})}
        wanted = {"max_tokens": 24, "seed": 3, "temperature": 0.8, **more}
        return self.api.completions.create(model="story", prompt=prompt, extra_body=extra, **wanted)

    def served(self) -> int:
        """Chunks that all peers have computed since they started."""
        return sum(served_by(peer) for peer in self.swarm.nodes if peer is not self.node)


def served_by(node: NodeProcess) -> int:
    with urllib.request.urlopen(f"{node.gateway}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return int(sum(float(line.split()[1]) for line in lines if line.startswith("kekahyde_served_chunks_total")))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Swarm() as swarm:
        swarm.start(4)
        peers = swarm.bootstrap()
        swarm.start(1, options=peers)
        node = swarm.nodes[-1]
        with openai.OpenAI(base_url=f"{node.gateway}/v1", api_key="any", max_retries=0, timeout=60) as api:
            yield Client(swarm, node, api)


@pytest.fixture(scope="module")
def alone(client: Client) -> list[str]:
    """Each prompt's text, computed by the node alone."""
    return [client.complete(prompt, "local").choices[0].text for prompt in PROMPTS]


TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}},
    },
}
FORM = {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"enum": ["x", "y"]}}, "required": ["a", "b"]}
SHAPED: list[dict[str, Any]] = [
    {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "form", "schema": FORM}}},
    {"n": 3, "logprobs": True, "top_logprobs": 2, "max_tokens": 6},
]


@pytest.mark.parametrize("privacy", ["split", pytest.param("strict", marks=pytest.mark.long)])
def test_calls_forms_and_several_answers_are_those_of_this_device_alone(client: Client, privacy: str) -> None:
    for shaped in SHAPED:
        answers = []
        for mode in ("local", privacy):
            wanted = {
                "model": "story",
                "messages": [{"role": "user", "content": "Once"}],
                "temperature": 0.8,
                "seed": 5,
            }
            answer = client.api.chat.completions.create(
                **{**wanted, "max_tokens": 60, **shaped},  # type: ignore[call-overload]
                extra_body={"privacy": mode},
            )
            assert mode == "local" or verified(answer.model_extra["kekahyde"]) > 0
            answers.append([(each.message.content, calls_of(each.message), each.logprobs) for each in answer.choices])
        assert answers[0] == answers[1], shaped


def calls_of(message: Any) -> list[tuple[str, str]]:
    return [(call.function.name, call.function.arguments) for call in message.tool_calls or ()]


def verified(receipts: dict[str, Any]) -> int:
    """Chunks of all answers that peers computed."""
    return sum(receipt["chunks"]["verified"] for receipt in receipts.get("answers", [receipts]))


@pytest.mark.parametrize("privacy", ["split", "strict"])
def test_requests_that_meet_get_the_text_that_each_would_get_alone(
    client: Client, alone: list[str], privacy: str
) -> None:
    with ThreadPoolExecutor(len(PROMPTS)) as askers:
        answers = list(askers.map(lambda prompt: client.complete(prompt, privacy), PROMPTS))
    assert [answer.choices[0].text for answer in answers] == alone
    for answer in answers:
        receipt = answer.model_extra["kekahyde"]
        chunks = receipt["chunks"]
        assert receipt["mode"] == privacy and receipt["tokens"] == 24
        lent = sum(place == "lent" for place in receipt["placement"].values())  # kinds of units: the planner chooses
        assert chunks["merged"] == chunks["verified"] + chunks["local"] >= 24 * 6 * lent > 0
        assert chunks["verified"] > 0.5 * chunks["merged"]
        assert receipt["bytes"]["up"] > 0 and receipt["bytes"]["down"] > 0
        assert sum(peer["chunks"] > 0 for peer in receipt["peers"]) >= (2 if privacy == "split" else 1)


def test_streams_side_by_side_advance_together(client: Client) -> None:
    """Two long streams; a third with a long prompt comes in between: nobody waits for anybody's end."""

    def times_of(prompt: str, max_tokens: int) -> list[float]:
        return [time.monotonic() for _ in client.complete(prompt, "split", max_tokens=max_tokens, stream=True)]

    with ThreadPoolExecutor(3) as askers:
        long = [askers.submit(times_of, PROMPTS[index], 60) for index in (0, 1)]
        newcomer = askers.submit(times_of, PROMPTS[2] * 3, 4)
        ends = [stream.result()[-1] for stream in long]
        starts = [stream.result()[0] for stream in long]
    assert max(starts) < min(ends), "both streamed at once"
    assert newcomer.result()[-1] < min(ends), "the short one did not wait for the end of the long ones"


@pytest.mark.parametrize("privacy", ["split", "strict"])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_closed_connection_stops_every_peer(client: Client, privacy: str, phase: str) -> None:
    """Measured at the peers: 200 ms after the end nothing more is computed by anybody."""
    prompt = "a little fox and a cat " * (60 if phase == "prefill" else 1) + privacy
    before = client.served()
    stream = client.complete(prompt, privacy, max_tokens=300, stream=True)
    if phase == "decode":
        for _ in zip(range(5), stream, strict=False):
            pass
    else:
        while client.served() == before:
            time.sleep(0.002)
    stream.close()
    time.sleep(CANCEL_LIMIT_S)  # the promise itself, not a wait for something to happen
    stopped = client.served()
    assert stopped > before
    time.sleep(0.5)
    assert client.served() == stopped


def test_a_watcher_sees_every_chunk_live_and_end(client: Client) -> None:
    async def watch() -> tuple[list[list[Any]], dict[str, Any], int]:
        rows: list[list[Any]] = []
        receipt: dict[str, Any] = {}
        dropped = 0
        async with aiohttp.ClientSession() as http, http.ws_connect(f"{client.node.gateway}/ws") as socket:
            await socket.send_json({"op": "subscribe", "id": 1, "topics": ["chunks"]})
            wanted = {"prompt": "The cat sat", "privacy": "split", "max_tokens": 12, "ignore_eos": True}
            await socket.send_json({"op": "generate", "id": 2, "request": "watched", **wanted})
            quiet_s = 30.0
            while True:
                try:
                    frame = await socket.receive_json(timeout=quiet_s)
                except TimeoutError:
                    return rows, receipt, dropped
                if frame["type"] == "chunks":
                    assert len(frame["items"]) <= 512
                    rows += frame["items"]
                    dropped += frame["dropped"]
                elif frame.get("event") == "receipt":
                    receipt, quiet_s = frame["receipt"], 0.5

    rows, receipt, dropped = asyncio.run(watch())
    assert dropped == 0
    lives: dict[int, list[str]] = {}
    roles: dict[int, str] = {}
    for number, request, layer, kind, start, end, peer_id, role, state, ms in rows:
        assert request in ("watched", "") and 0 <= layer < 6 and kind in ("qkv", "o", "gate_up", "down")
        assert start < end and ms >= 0 and peer_id in {peer.peer_id for peer in client.swarm.nodes[:4]}
        lives.setdefault(number, []).append(state)
        roles[number] = role
    shares = [life for number, life in lives.items() if roles[number] == "share"]
    assert set(roles.values()) == {"pad", "share"}
    assert all(life[0] == "sent" and life[-1] == "merged" for life in shares)
    assert len(shares) == receipt["chunks"]["merged"] == receipt["chunks"]["sent"]
    assert sum("verified" in life for life in shares) >= receipt["chunks"]["verified"]


def test_run_is_done_by_the_node_that_runs(client: Client, alone: list[str]) -> None:
    command = [*PROGRAM, "run", "--json", "--data-dir", str(client.node.data_dir), "--privacy", "split"]
    command += ["--ignore-eos", "--max-tokens", "24", "--seed", "3", "--temperature", "0.8", PROMPTS[0]]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    *tokens, receipt = [json.loads(line) for line in result.stdout.splitlines()]
    assert receipt["text"] == "".join(token["text"] for token in tokens) == alone[0]
    assert receipt["mode"] == "split" and receipt["chunks"]["verified"] > 0
    assert {peer["peer_id"] for peer in receipt["peers"]} == {peer.peer_id for peer in client.swarm.nodes[:4]}
    assert "split" in result.stderr


def test_an_interrupted_run_is_one_line_and_the_node_goes_on(client: Client, alone: list[str]) -> None:
    command = [*PROGRAM, "run", "--json", "--data-dir", str(client.node.data_dir), "--privacy", "split"]
    command += ["--ignore-eos", "--max-tokens", "400", PROMPTS[0]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None and run.stderr is not None
        assert json.loads(run.stdout.readline())["type"] == "token"
        run.send_signal(signal.SIGINT)
        assert run.wait(10) == 130
        assert run.stderr.read().splitlines()[-1] == "error: interrupted"
    assert client.complete(PROMPTS[0], "local").choices[0].text == alone[0]


def test_a_peer_that_is_killed_is_a_note_and_nothing_else(client: Client, alone: list[str]) -> None:
    """The last test of this file: it costs a peer."""
    stream = client.complete(PROMPTS[0], "split", max_tokens=24, stream=True)
    chunks = []
    for chunk in stream:
        chunks.append(chunk)
        if len(chunks) == 5:
            for peer in client.swarm.nodes[:4]:
                peer.kill()
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == alone[0]
    receipt = chunks[-1].model_extra["kekahyde"]
    assert "was lost" in receipt["note"]
    assert receipt["chunks"]["verified"] > 0 and receipt["chunks"]["local"] > 0
