"""`scripts/gpu_check`: the linear layers on an NVIDIA card: exact or not, how fast, and a client that lends to it.

`--device cpu` runs the same code on CPU tensors: it shows that this program works and that the arithmetic is exact,
and says nothing about speed.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from node.kernels import select_kernels
from node.kernels.delegating import DelegatingKernels
from node.kernels.interface import PRIME, Kernels
from node.kernels.selftest import self_test
from scripts.benchmarks.spans import ask
from scripts.harness.owner import pair
from scripts.harness.random_model import write_random_model
from scripts.harness.swarm import Swarm

SHAPES = ((4096, 4096), (28672, 8192))
ROWS = (1, 8, 128)
BUDGET_S = 0.5
WORKER_SHAPE = "1.1b"
TOKENS = 16
PROMPT = 512
"""Tokens of the prompt that goes through a span."""
HIDDEN = {"CUDA_VISIBLE_DEVICES": ""}
"""What keeps a process off the card."""


def gpu_kernels(device: str) -> DelegatingKernels:
    """The backend with its linear layers on the device, over one thread; raises ClickException if there is none."""
    os.environ.pop("KEKAHYDE_KERNELS", None)
    kernels = select_kernels(1)
    if device == "cuda":
        if not isinstance(kernels, DelegatingKernels):
            raise click.ClickException(f"no card is used: {kernels.note or 'no NVIDIA driver was found'}")
        return kernels
    import torch

    from node.kernels.cuda import CudaKernels

    return CudaKernels(kernels, torch.device("cpu"), min_weights=0)


def speed(call: Callable[[], object]) -> float:
    """Seconds of a call, the best of several."""
    call()
    best, until = float("inf"), time.perf_counter() + BUDGET_S
    while time.perf_counter() < until:
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return best


def kernel_rows(card: Kernels, own: Kernels, shapes: Sequence[tuple[int, int]]) -> list[list[str]]:
    """One row for each shape, number of rows and kind of rows; raises ClickException where the card is wrong."""
    generator, table = np.random.default_rng(1), []
    for outputs, inputs in shapes:
        weights = generator.integers(-127, 128, (outputs, inputs), dtype=np.int8)
        for count in ROWS:
            plain = generator.integers(-2047, 2048, (count, inputs), dtype=np.int16)
            field = generator.integers(0, PRIME, (count, inputs), dtype=np.uint32)
            for kind, on_card, here in (
                (
                    "A12",
                    lambda w=weights, r=plain: card.linear_a12(w, r),
                    lambda w=weights, r=plain: own.linear_a12(w, r),
                ),
                (
                    "field",
                    lambda w=weights, r=field: card.linear_field(w, r),
                    lambda w=weights, r=field: own.linear_field(w, r),
                ),
            ):
                if not np.array_equal(on_card(), here()):
                    raise click.ClickException(f"{kind}, {outputs} x {inputs}, T = {count}: the card is not exact")
                seconds, own_s = speed(on_card), speed(here)
                macs = outputs * inputs * count
                rate = f"{macs / seconds / 1e9:.1f}"
                read = f"{outputs * inputs / seconds / 1e9:.1f}"
                table.append([f"{outputs} x {inputs}", str(count), kind, rate, read, f"{own_s / seconds:.2f}"])
    return table


def card_itself(device: str) -> tuple[float, float]:
    """What torch reaches on it: GB/s of a copy within its memory, and GMAC/s of int8 matrices."""
    import torch

    side = 8192 if device == "cuda" else 1024
    block = torch.zeros(side * side, dtype=torch.int8, device=device)
    left = torch.ones((side, side), dtype=torch.int8, device=device)

    def finished(call: Callable[[], object]) -> Callable[[], object]:
        def play() -> None:
            call()
            if device == "cuda":
                torch.cuda.synchronize()

        return play

    copy_s = speed(finished(block.clone))
    product_s = speed(finished(lambda: torch._int_mm(left, left.t())))
    return 2 * block.numel() / copy_s / 1e9, side**3 / product_s / 1e9


def lend_to_it() -> list[list[str]]:
    """A client without the card asks a worker with it over loopback, and one without it; the texts must agree."""
    rows, texts = [], set()
    with tempfile.TemporaryDirectory(prefix="kekahyde-gpu-") as folder:
        models = Path(folder) / "models"
        write_random_model(WORKER_SHAPE, Path(folder) / "source", models)
        for name, environment in (("worker on the card", {}), ("worker on the processor", HIDDEN)):
            with Swarm(model=WORKER_SHAPE, models=models, env=dict(environment)) as swarm:
                swarm.start(1)
                swarm.env.update(HIDDEN)
                swarm.start(1, options=swarm.bootstrap())
                worker, client = swarm.nodes
                pair(client, worker)
                sampling = ["--ignore-eos", "--max-tokens", str(TOKENS), "--temperature", "0"]
                done = swarm.run("w1", ["--privacy", "strict", "--pad-rows", str(TOKENS + 8), *sampling])
                if done.returncode:
                    raise click.ClickException(f"{name}: {done.narration[-800:]}")
                # The second answer through a span is taken: the first one moves the weights to the card.
                spans = [ask(client.data_dir, "trusted", PROMPT, TOKENS, number) for number in range(2)][-1]
                strict = done.receipt
            texts.add((strict["text"], spans["text"]))
            speeds = (strict["tokens_per_s"], spans["tokens_per_s"])
            rows.append([name, *(f"{speed:.2f}" for speed in speeds), f"{spans['ttft_s']:.2f}"])
    if len(texts) > 1:
        raise click.ClickException("the texts differ")
    return rows


@click.command()
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--small", is_flag=True, help="Small shapes only, and no worker: to try this program.")
def main(device: str, small: bool) -> None:
    """Check the linear layers on a card."""
    console = Console(highlight=False, width=110)
    card = gpu_kernels(device)
    own = card.base
    failure = self_test(card)
    if failure is not None:
        raise click.ClickException(f"the self-test fails on {card.name}: {failure}")
    console.print(f"{card.name}: the self-test passes, every result below was compared bit for bit")
    copied, multiplied = card_itself(device)
    console.print(f"torch itself: {copied:.0f} GB/s of a copy, {multiplied:.0f} GMAC/s of int8 matrices")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("weights", "rows", "kind", "GMAC/s", "GB/s of weights", "x one thread here"):
        table.add_column(heading, justify="right")
    for row in kernel_rows(card, own, [(512, 384)] if small else SHAPES):
        table.add_row(*row)
    console.print(table)
    if small:
        return
    lent = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{WORKER_SHAPE} shape, one worker", title_justify="left")
    spans = "through a span: tokens/s", f"first token of {PROMPT}, s"
    for heading in ("who computes", "strict, pads ahead: tokens/s", *spans):
        lent.add_column(heading)
    for row in lend_to_it():
        lent.add_row(*row)
    console.print(lent)


if __name__ == "__main__":
    main(prog_name="scripts/gpu_check")
