"""`scripts/privacy_audit`: run a session over tapped peers and report what they could have learned.

Exit code 0 only if every check holds and every planted fault is caught.
"""

from __future__ import annotations

import sys
import time

import click
import numpy as np
from rich.console import Console

from node.kernels.portable import PortableKernels
from node.paths import DataDir
from node.trust import PairedDevices
from protocol.limits import HASH_BYTES, OPERATOR_BYTES
from protocol.pairing.code import CERTIFICATE_DOMAIN, Certificate, certified
from scripts.harness.swarm import NodeProcess, RunResult, Swarm
from scripts.privacy_lab.tap import Rows, Tapped, chi_square_p, near_pairs, read_tap

MIN_P = 1e-9
PAIRED = "strict, pads by a paired device"
NODES = {"split": 2, "strict": 2, PAIRED: 2}


def run_tapped(swarm: Swarm, mode: str, prompt: str, max_tokens: int) -> tuple[RunResult, list[Tapped]]:
    """A session over tapped nodes: what it said, and what each node received."""
    taps = [swarm.folder / f"tap{index}" for index in range(NODES[mode])]
    swarm.start(len(taps), {index: ["--tap", str(tap)] for index, tap in enumerate(taps)})
    if mode == PAIRED:
        pair_client(swarm, swarm.nodes[0])
    sampling = ["--ignore-eos", "--max-tokens", str(max_tokens), "--seed", "3", "--temperature", "0.9"]
    privacy = "strict" if mode == PAIRED else mode
    result = swarm.run(prompt, ["--privacy", privacy, *sampling])
    return result, [read_tap(tap) for tap in taps]


def pair_client(swarm: Swarm, node: NodeProcess) -> None:
    """Write the pairing of the client with a node, as both would have signed it."""
    folder = swarm.folder / "client"
    client, device = DataDir.open(folder).identity(), DataDir.open(node.data_dir).identity()
    message = certified(bytes(HASH_BYTES), client.public_key, device.public_key)
    signatures = [identity.sign(CERTIFICATE_DOMAIN, message) for identity in (client, device)]
    certificate = Certificate(bytes(HASH_BYTES), client.public_key, device.public_key, *signatures)
    PairedDevices(client, folder).add(device.peer_id, certificate, bytes([1] * OPERATOR_BYTES), time.time())


def findings(tapped: Tapped, prompt: str) -> list[str]:
    """What is wrong with the messages of one peer; empty where nothing is."""
    wrong = []
    if any(prompt.encode() in frame for frame in tapped.raw):
        wrong.append("the prompt itself")
    if tapped.seeds and tapped.rows:
        wrong.append("seeds and shares at one peer")
    if len(set(tapped.seeds)) != len(tapped.seeds):
        wrong.append("a seed twice")
    if sorted(set(tapped.nonces)) != tapped.nonces:
        wrong.append("nonces that do not increase")
    if tapped.rows:
        elements = np.concatenate([rows.ravel() for rows in tapped.rows])
        wrong += [f"byte {byte} is not uniform" for byte in range(4) if chi_square_p(elements, byte) < MIN_P]
        if near_pairs(tapped.rows)[0]:
            wrong.append("two rows under one pad")
    return wrong


def planted_faults_missed(tapped: Tapped) -> list[str]:
    """Controls: the audit must notice a reused pad, a narrow pad and a biased one among the real shares."""
    generator, kernels = np.random.default_rng(5), PortableKernels()
    width = tapped.rows[0].shape[1]
    rows = generator.integers(-2047, 2048, (64, width)).astype(np.int16)
    pads = generator.integers(0, 2**31 - 1, (1, width)).astype(np.uint32)
    reused = [kernels.share(rows[:1], pads), kernels.share(rows[1:2], pads)]
    narrow = [kernels.share(rows, (np.repeat(pads, 64, axis=0) & np.uint32(0xFFFF)).copy())]
    words = generator.integers(0, 2**31 - 1, (64, 1024))
    biased: list[Rows] = [(words - words % 256 + words % 256 % 251).astype(np.uint32)]
    missed = []
    for name, planted in (("reused pad", reused), ("narrow pad", narrow), ("biased pad", biased)):
        control = Tapped(rows=[*tapped.rows, *planted] if name == "reused pad" else planted)
        if not findings(control, "\0"):
            missed.append(name)
    return missed


@click.command()
@click.option("--max-tokens", type=int, default=128, show_default=True)
@click.option("--prompt", default="Once upon a time there was a secret that nobody else may read", show_default=True)
def main(max_tokens: int, prompt: str) -> None:
    """Tap every peer of a split session and of two strict ones and examine what it received."""
    console, failed = Console(highlight=False), False
    for mode in NODES:
        with Swarm() as swarm:
            result, taps = run_tapped(swarm, mode, prompt, max_tokens)
        if result.returncode != 0 or result.receipt["mode"] != mode.partition(",")[0]:
            raise click.ClickException(f"the {mode} session did not run: {result.narration or result.receipt}")
        for index, tapped in enumerate(taps):
            wrong = findings(tapped, prompt)
            failed |= bool(wrong)
            num_rows = sum(len(rows) for rows in tapped.rows)
            pairs = near_pairs(tapped.rows)
            console.print(
                f"{mode} peer {index}: {len(tapped.seeds)} seeds, {num_rows} share rows, {pairs[1]} pairs compared, "
                f"{pairs[0]} near: {'; '.join(wrong) or 'noise only'}"
            )
            if tapped.rows:
                missed = planted_faults_missed(tapped)
                failed |= bool(missed)
                console.print(f"  planted faults missed: {', '.join(missed) or 'none'}")
    sys.exit(failed)


if __name__ == "__main__":
    main(prog_name="scripts/privacy_audit")
