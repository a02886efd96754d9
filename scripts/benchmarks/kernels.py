"""How fast the linear kernels are, against what this machine's memory and torch's fp32 GEMM can do.

Everything of one shape is measured side by side in interleaved rounds, so that drift of a shared machine hits all
alike; figures are medians. A weight is one byte, so "GB/s" is weights read a second, and at T = 1 the share of the
machine's own read bandwidth says how much is left to gain.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from node.kernels import Kernels, every_backend
from node.kernels.interface import ACTIVATION_LIMIT, PRIME
from node.kernels.native import NativeKernels
from node.process.allowance import available_cores

READ_BYTES: Final = 256 << 20
"""Far beyond any L3 cache of the machines that this runs on."""
SHAPES: Final = ((28_672, 8_192), (8_192, 8_192), (4_096, 4_096), (704, 256), (256, 704))
"""(N, K): two layers of a 70B model, one that an L3 cache may hold, and two of the embedded story model."""
ROW_COUNTS: Final = (1, 8, 32, 256)
MAX_OPERATIONS: Final = 2 << 34
"""Multiply-adds beyond which a shape is left out at this many rows: a round should take seconds."""
PORTABLE_OPERATIONS: Final = 1 << 29
"""The same for the numpy backend, which is slower by a magnitude."""

MIN_ROUND_S: Final = 0.01
"""A call that is shorter is repeated for so long in every round."""

SLOW_S: Final = 0.2
SLOW_ROUNDS: Final = 2
"""A call that takes longer than SLOW_S is measured SLOW_ROUNDS times at most."""
SETTLE_S: Final = 0.03
"""Threads of OpenMP and OpenBLAS spin for so long after a product, on cores that the next subject wants."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured kernel."""

    outputs: int
    inputs: int
    rows: int
    subject: str
    """"fp32 GEMM", or the backend and the kind of rows, such as "c-avx2 field"."""
    threads: int
    ms: float
    gmacs: float
    """Multiply-adds of the layer, in 10^9 a second; a field row counts once, whatever its limbs."""
    weight_gb_s: float
    read_share: float
    """Weights read a second over the machine's read bandwidth on as many threads."""
    gemm_ratio: float
    """Speed over torch's fp32 GEMM of the same shape on as many threads."""


def interleaved_seconds(subjects: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """The times of each subject over interleaved rounds, after one that sets how often a call repeats."""
    times: dict[str, list[float]] = {name: [] for name in subjects}
    repeats = dict.fromkeys(subjects, 1)
    for i in range(rounds + 1):
        for name, call in subjects.items():
            if i > SLOW_ROUNDS and times[name][0] > SLOW_S:
                continue
            time.sleep(SETTLE_S)
            call()  # brings the caches back to this subject
            started = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            elapsed = (time.perf_counter() - started) / repeats[name]
            if i == 0:
                repeats[name] = max(1, min(1000, round(MIN_ROUND_S / elapsed)))
            else:
                times[name].append(elapsed)
    return times


def read_bandwidth(threads: int, rounds: int) -> float:
    """Bytes a second that plain reading reaches: the best round of the best level, numpy's where there is no C."""
    words: NDArray[np.uint64] = np.ones(READ_BYTES // 8, np.uint64)
    subjects: dict[str, Callable[[], object]] = {}
    for kernels in every_backend(threads):
        if isinstance(kernels, NativeKernels):
            subjects[kernels.name] = lambda kernels=kernels: kernels.read_sum(words)  # type: ignore[misc]
    subjects = subjects or {"numpy": lambda: np.add.reduce(words)}
    return words.nbytes / min(min(times) for times in interleaved_seconds(subjects, rounds).values())


def subjects_of(
    backends: list[Kernels], weights: NDArray[np.int8], num_rows: int, random: np.random.Generator
) -> dict[str, Callable[[], object]]:
    """What is measured side by side for one shape and number of rows."""
    num_outputs, num_inputs = weights.shape
    small = random.integers(-ACTIVATION_LIMIT, ACTIVATION_LIMIT + 1, (num_rows, num_inputs), np.int16)
    elements = random.integers(0, PRIME, (num_rows, num_inputs), np.uint32)
    gemm_rows, gemm_weights = torch.randn(num_rows, num_inputs), torch.randn(num_outputs, num_inputs)
    subjects: dict[str, Callable[[], object]] = {"fp32 GEMM": lambda: gemm_rows @ gemm_weights.t()}
    for kernels in backends:
        if kernels.name == "portable" and weights.size * num_rows > PORTABLE_OPERATIONS:
            continue
        subjects[f"{kernels.name} A12"] = lambda kernels=kernels: kernels.linear_a12(weights, small)  # type: ignore[misc]
        subjects[f"{kernels.name} field"] = lambda kernels=kernels: kernels.linear_field(weights, elements)  # type: ignore[misc]
    return subjects


def measure_shape(
    backends: list[Kernels], shape: tuple[int, int], num_rows: int, read_bytes_s: float, rounds: int
) -> list[Figure]:
    """Figures for one shape and number of rows."""
    random = np.random.default_rng(shape[0])
    weights = random.integers(-127, 128, shape, np.int8)
    times = interleaved_seconds(subjects_of(backends, weights, num_rows, random), rounds)
    seconds = {subject: statistics.median(values) for subject, values in times.items()}
    operations = weights.size * num_rows
    return [
        Figure(
            *shape,
            num_rows,
            subject,
            backends[0].threads,
            ms=elapsed * 1e3,
            gmacs=operations / elapsed / 1e9,
            weight_gb_s=weights.size / elapsed / 1e9,
            read_share=weights.size / elapsed / read_bytes_s,
            gemm_ratio=seconds["fp32 GEMM"] / elapsed,
        )
        for subject, elapsed in seconds.items()
    ]


def as_table(figures: list[Figure], title: str) -> Table:
    """The figures as they are printed."""
    table = Table(title=title, title_justify="left")
    for column in ("N x K", "T", "subject"):
        table.add_column(column)
    for column in ("ms", "GMAC/s", "weights GB/s", "of read", "x fp32 GEMM"):
        table.add_column(column, justify="right")
    previous = None
    for f in figures:
        shape = f"{f.outputs} x {f.inputs}"
        key = (shape, f.rows)
        first = ("", "") if key == previous else (shape, str(f.rows))
        numbers = f"{f.ms:.3f}", f"{f.gmacs:.1f}", f"{f.weight_gb_s:.2f}", f"{f.read_share:.0%}"
        table.add_row(*first, f.subject, *numbers, f"{f.gemm_ratio:.2f}", end_section=False)
        previous = key
    return table


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench kernels", description=__doc__.split("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument("--quick", action="store_true", help="fewer shapes, rows and rounds: under half a minute")
    parser.add_argument("--all-levels", action="store_true", help="every C level, not only the fastest")
    parser.add_argument("--threads", type=int, nargs="*", help="numbers of threads (default: 1 and all cores)")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    options = parse_arguments(arguments)
    rounds = 3 if options.quick else 5
    shapes = ((8_192, 8_192), (704, 256)) if options.quick else SHAPES
    row_counts = (1, 32) if options.quick else ROW_COUNTS
    console = Console(width=None if sys.stdout.isatty() else 110)
    document: dict[str, object] = {"cores": os.cpu_count(), "runs": []}
    runs: list[dict[str, object]] = []
    for threads in options.threads or sorted({1, available_cores()}):
        torch.set_num_threads(threads)
        backends = every_backend(threads)
        backends = backends if options.all_levels else [*backends[:-1][:1], backends[-1]]
        read_bytes_s = read_bandwidth(threads, rounds)
        figures = [
            figure
            for shape in shapes
            for num_rows in row_counts
            if shape[0] * shape[1] * num_rows <= MAX_OPERATIONS
            for figure in measure_shape(backends, shape, num_rows, read_bytes_s, rounds)
        ]
        runs.append({"threads": threads, "read_gb_s": read_bytes_s / 1e9, "figures": [asdict(f) for f in figures]})
        if not options.json:
            title = f"{threads} thread(s), read bandwidth {read_bytes_s / 1e9:.1f} GB/s"
            console.print(as_table(figures, title))
    if options.json:
        document["runs"] = runs
        print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
