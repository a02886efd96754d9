"""`scripts/bench rivals`: one device alone, beside llama.cpp on the same weights (SmolLM2-135M in Q8_0).

Both run in processes of their own, one after the other, pair by pair, so that a drift of the machine's speed hits
both alike; the ratios are of pairs. llama.cpp comes as the wheel `xllamacpp`, which only this benchmark needs:
`.venv/bin/pip install xllamacpp`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import psutil
from rich import box
from rich.console import Console
from rich.table import Table

from scripts.harness.programs import program
from scripts.harness.real_models import smollm2_gguf
from scripts.harness.requantized import SHAPES, write_q8_0, write_random

RIVAL = "xllamacpp"
CONTEXT = 1024
WARM_UP_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Speeds:
    """Tokens a second."""

    decode: float
    prefill: float


@dataclass(slots=True)
class Pairs:
    """Speeds of both programs, pair by pair."""

    ours: list[Speeds] = field(default_factory=list)
    theirs: list[Speeds] = field(default_factory=list)

    def row(self, name: str) -> list[str]:
        """Medians of both, the median ratio and its range."""
        ours, theirs = ([getattr(speeds, name) for speeds in of] for of in (self.ours, self.theirs))
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        medians = (f"{statistics.median(values):.0f}" for values in (ours, theirs))
        return [*medians, f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f} to {max(ratios):.2f}"]


def measure_ours(path: Path, threads: int, prompt: int, tokens: int) -> Speeds:
    """In this process, with the kernels and the decoder that a node uses."""
    from node.kernels.native import NativeKernels
    from node.model.decoder import Decoder
    from node.model.linear import LocalLinear
    from node.store.library import Library

    kernels = NativeKernels(threads)
    decoder = Decoder.of_units(Library(path.parent / "models").resolve(path), kernels, LocalLinear(kernels))
    decoder.forward([1] * WARM_UP_TOKENS, decoder.new_cache())
    cache, ids = decoder.new_cache(), [100 + number % 1000 for number in range(prompt)]
    started = time.perf_counter()
    logits = decoder.forward(ids, cache)
    prefilled = time.perf_counter()
    for _ in range(tokens):
        logits = decoder.forward([int(logits.argmax())], cache)
    return Speeds(tokens / (time.perf_counter() - prefilled), prompt / (prefilled - started))


def measure_theirs(path: Path, threads: int, prompt: int, tokens: int) -> Speeds:
    """By its own clock."""
    xllamacpp: Any = import_module(RIVAL)
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_gpu_layers, params.n_parallel = CONTEXT, 0, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)
    ids = [100 + number % 1000 for number in range(prompt)]
    asked = {"n_predict": tokens, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False}
    server.handle_completions({"prompt": ids[:WARM_UP_TOKENS], **asked, "n_predict": WARM_UP_TOKENS})
    timings = server.handle_completions({"prompt": ids, **asked})["timings"]
    return Speeds(timings["predicted_per_second"], timings["prompt_per_second"])


def apart(who: str, path: Path, threads: int, prompt: int, tokens: int) -> Speeds:
    """One measurement in a process of its own."""
    command = [*program("scripts.benchmarks.rivals"), "--one", who, str(path), str(threads), str(prompt), str(tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{who}: {done.stderr[-500:]}")
    return Speeds(*json.loads(done.stdout.splitlines()[-1]))


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Pairs of each kind.")
@click.option("--prompt", type=click.IntRange(1), default=450, show_default=True, help="Tokens of the prompt.")
@click.option("--tokens", type=click.IntRange(1), default=64, show_default=True, help="Tokens of the answer.")
@click.option("--threads", "counts", type=click.IntRange(1), multiple=True, default=(1, 2), show_default=True)
@click.option(
    "--shape", type=click.Choice(sorted(SHAPES)), help="Random weights of another shape instead of SmolLM2."
)
def main(rounds: int, prompt: int, tokens: int, counts: tuple[int, ...], shape: str | None) -> None:
    """Measure decoding and prefill beside llama.cpp."""
    if importlib.util.find_spec(RIVAL) is None:
        raise click.ClickException(f"{RIVAL} is not installed: {sys.executable} -m pip install {RIVAL}")
    console = Console(highlight=False, width=120)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("threads", "what", "Kekahyde tok/s", "llama.cpp tok/s", "ratio", "of pairs"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    with tempfile.TemporaryDirectory(prefix="kekahyde-rivals-") as folder:
        path, source = Path(folder) / "model-q8_0.gguf", smollm2_gguf()
        path = write_q8_0(source, path) if shape is None else write_random(source, path, shape)
        apart("ours", path, 1, WARM_UP_TOKENS, 1)  # imports it
        for threads in counts:
            pairs = Pairs()
            for _ in range(rounds):
                pairs.ours.append(apart("ours", path, threads, prompt, tokens))
                pairs.theirs.append(apart("theirs", path, threads, prompt, tokens))
            table.add_row(str(threads), f"decode {tokens}", *pairs.row("decode"))
            table.add_row(str(threads), f"prefill {prompt}", *pairs.row("prefill"))
    console.print(f"{platform.machine()}, {psutil.cpu_count()} cores, {rounds} pairs each")
    console.print(table)


def one(who: str, path: str, *numbers: str) -> None:
    """Measure once and print the speeds; whatever a library prints goes elsewhere."""
    out = os.dup(1)
    os.dup2(2, 1)
    measure = {"ours": measure_ours, "theirs": measure_theirs}[who]
    speeds = measure(Path(path), *map(int, numbers))
    os.write(out, f"{json.dumps([speeds.decode, speeds.prefill])}\n".encode())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(*sys.argv[2:])
    else:
        main(prog_name="scripts/bench rivals")
