"""`bench`: how fast this device is alone."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from node.cli.narrate import say
from node.cli.options import EXIT_CODES, data_dir_option, json_option, model_option, threads_option
from node.execution.hybrid import HybridExecutor
from node.kernels import select_kernels
from node.kernels.speed import field_macs_per_s, local_macs_per_s
from node.model.decoder import Decoder
from node.paths import DataDir
from node.store.library import Library

BENCH_TOKENS = 64


@click.command(epilog=EXIT_CODES)
@data_dir_option
@model_option
@threads_option
@json_option
def bench(data_dir: Path, model: str, threads: int | None, as_json: bool) -> None:
    """Measure this device alone: the speed of its kernels, and tokens per second of a model without peers."""
    kernels = select_kernels(threads)
    stored = Library(DataDir.open(data_dir).models).resolve(model)
    decoder = Decoder.of_units(stored, kernels, HybridExecutor(kernels))
    cache = decoder.new_cache(stored.config.context_length)
    decoder.forward([1], cache)
    num_tokens = min(BENCH_TOKENS, stored.config.context_length - 1)
    started = time.perf_counter()
    for _ in range(num_tokens):
        decoder.forward([1], cache)
    facts = {
        "kernels": kernels.name,
        "threads": kernels.threads,
        "gmacs_a12": round(local_macs_per_s(kernels) / 1e9, 2),
        "gmacs_field": round(field_macs_per_s(kernels) / 1e9, 2),
        "model": stored.name,
        "tokens_per_s": round(num_tokens / (time.perf_counter() - started), 1),
    }
    if as_json:
        click.echo(json.dumps(facts))
    else:
        for name, value in facts.items():
            click.echo(f"{name:<14} {value}")
    if kernels.note:
        say(f"note: {kernels.note}")
