"""A device that has no weights fetches them over the wire and serves them; a client that has none answers."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from node.gateway.client.client import call_node
from node.store.stored import StoredModel
from scripts.benchmarks.transfer import make_model
from scripts.networks.devices import Device, Lab, LabError, invitation_of, must, wait

COPY_PORT = 4999
SIZES = {"hidden_size": 512, "intermediate_size": 1536, "num_attention_heads": 8, "num_key_value_heads": 4}
SAMPLING = ("--ignore-eos", "--max-tokens", "6", "--temperature", "0", "--seed", "1")
FETCH_TIMEOUT_S = 120.0

# The plain copy that the transfer is compared with: the same bytes through one TCP connection of the same wire.
SENDER = """
import socket, sys
with socket.create_server(("0.0.0.0", int(sys.argv[1]))) as server:
    print("ready", flush=True)
    connection, _ = server.accept()
    with connection:
        connection.sendall(bytes(int(sys.argv[2])))
"""
RECEIVER = """
import socket, sys, time
began, left = time.monotonic(), int(sys.argv[3])
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    while left:
        left -= len(connection.recv(min(left, 1 << 20)))
print(time.monotonic() - began)
"""


def weights(lab: Lab) -> dict[str, Any]:
    """An invited device without weights fetches layers and serves them; a client without any answers by them."""
    with tempfile.TemporaryDirectory(prefix="kekahyde-weights-") as folder:
        stored = make_model(Path(folder), 2, **SIZES)
        first, second, newcomer, client = lab.devices
        first.start("--no-mdns", model=str(stored.path))
        line = invitation_of(first)
        for device in (second, newcomer, client):
            must(device.call("join", line), "join")
        second.start("--no-mdns", model=str(stored.path))
        lab.wait_mesh([first, second], time.monotonic())
        newcomer.start("--no-mdns")
        job, from_start_s, fetch_s = fetched(newcomer)
        copy_s = plain_copy(lab, first, newcomer, job["fetched_bytes"])
        answer = same_answer(client, newcomer, second, stored)
        return {
            "fetched_bytes": job["fetched_bytes"],
            "bytes_of_these_layers": job["total_bytes"],
            "start_to_served_s": from_start_s,
            "fetch_s": fetch_s,
            "plain_tcp_copy_s": copy_s,
            "times_plain_copy": fetch_s / copy_s,
            **answer,
        }


def fetched(device: Device) -> tuple[dict[str, Any], float, float]:
    """The transfer of a device at its end; seconds from its start on, and those in which pieces came."""
    began = time.monotonic()

    def job() -> dict[str, Any]:
        jobs = call_node(device.folder, "transfers")["transfers"]
        return dict(jobs[0]) if jobs else {"state": "running", "total_bytes": 0}

    wait(lambda: job()["total_bytes"] > 0, FETCH_TIMEOUT_S, "no layers were chosen")
    chosen = time.monotonic()
    wait(lambda: job()["state"] != "running", FETCH_TIMEOUT_S, "the layers were not fetched")
    ended, now = job(), time.monotonic()
    if ended["state"] != "done":
        raise LabError(f"the transfer {ended['state']}: {ended['error']}")
    return ended, now - began, now - chosen


def plain_copy(lab: Lab, source: Device, target: Device, num_bytes: int) -> float:
    """Seconds for as many bytes by TCP alone."""
    size, port = str(num_bytes), str(COPY_PORT)
    command = lab.network.command(source.index, sys.executable, "-c", SENDER, port, size)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sender:
        assert sender.stdout is not None
        sender.stdout.readline()
        receive = lab.network.command(target.index, sys.executable, "-c", RECEIVER, source.host, port, size)
        received = subprocess.run(receive, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S)
    return float(must(received, "the plain copy"))


def same_answer(client: Device, newcomer: Device, holder: Device, stored: StoredModel) -> dict[str, Any]:
    """A client that knows the id alone asks a lane of the newcomer and a holder, then itself alone."""
    lane = ["--bootstrap", newcomer.addresses[0], "--bootstrap", holder.addresses[0]]
    common = ["--json", "--model", stored.model_id, *SAMPLING]
    began = time.monotonic()
    split = receipt_of(client, "w1 w2 w3", *common, "--privacy", "split", "--lend", "layers", *lane)
    took_s = time.monotonic() - began
    local = receipt_of(client, "w1 w2 w3", *common, "--privacy", "local")
    if split["text"] != local["text"] or split["mode"] != "split" or not split["chunks"]["verified"]:
        raise LabError(f"the answer over the newcomer is another: {split} {local}")
    return {"client_from_nothing_to_answer_s": took_s, "chunks_by_the_lane": split["chunks"]["verified"]}


def receipt_of(client: Device, prompt: str, *options: str) -> dict[str, Any]:
    lines = must(client.call("run", prompt, *options), "run").splitlines()
    return dict(json.loads(lines[-1]))
