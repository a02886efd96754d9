"""One process of atheris for one target: `python -m scripts.fuzzing.worker TARGET SECONDS SEEDS OPTIONS FOLDERS`.

An input that breaks the target's promise ends the process, and libFuzzer writes it down. The last line of what this
process says to stdout holds how many inputs it read, and how much memory one took at most.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import resource
import sys
import time
from pathlib import Path

import atheris

INSTRUMENTED = (
    "protocol",
    "node.gateway",
    "node.guards",
    "node.json_file",
    "node.model",
    "node.operations",
    "node.serving.lending",
    "node.store",
    "node.swarm",
    "node.transfer",
    "node.trust",
)
"""Where there are decoders. Each module more makes a start longer."""
SLOWER = 20.0
"""Code whose coverage is recorded takes up to so many times as long."""
ADDRESS_SPACE_BYTES = 6 << 30
"""A process that asks for more gets a MemoryError: an input that would fill the machine's memory is found too."""

with atheris.instrument_imports(include=list(INSTRUMENTED), enable_loader_override=False):
    from scripts.fuzzing.mutations import mutated
    from scripts.fuzzing.target import FoundError, MemoryWatch, Target, examine
    from scripts.fuzzing.targets import target_named

    TARGET = target_named(sys.argv[1])


def write_seeds(target: Target, folder: Path) -> None:
    """The real encodings, which a run begins with."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (folder / f"seed-{number}").write_bytes(seed)


def fuzz(target: Target, seconds: float, seeds: Path, options: list[str]) -> None:
    """Read inputs for so long; libFuzzer's own limit of time would end the process without cleaning up."""
    memory, most, inputs = MemoryWatch(), 0, 0
    deadline: float | None = None

    def tell() -> None:
        print(json.dumps({"inputs": inputs, "most_bytes": most}), flush=True)

    def one(data: bytes) -> None:
        nonlocal most, inputs, deadline
        deadline = deadline or time.monotonic() + seconds
        try:
            most = max(most, examine(target, data, memory, SLOWER))
            inputs += 1
        except FoundError as exc:
            print(f"FOUND {target.name}: {exc}", file=sys.stderr, flush=True)
            tell()
            raise
        if time.monotonic() > deadline:
            tell()
            atexit._run_exitfuncs()
            os._exit(0)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.5:
            return bytes(atheris.Mutate(data, max_size))
        return mutated(data, target.form, chance, max_size)

    write_seeds(target, seeds)
    limits = [
        f"-max_len={target.max_bytes}",
        f"-timeout={max(60, round(2 * SLOWER * target.time_s))}",
        "-rss_limit_mb=4096",
    ]
    atheris.Setup([sys.argv[0], *limits, *options], one, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> None:
    """Read the command line; a replay reads one input as it is, without libFuzzer."""
    name, what, path, *options = sys.argv[1:]
    if what == "replay":
        started = time.monotonic()
        grown = examine(TARGET, Path(path).read_bytes(), MemoryWatch(), SLOWER)
        print(f"{name}: read or refused in {time.monotonic() - started:.2f} s, {grown >> 10} KiB")
        return
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    fuzz(TARGET, float(what), Path(path), options)


if __name__ == "__main__":
    main()
