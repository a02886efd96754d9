"""The network laboratory's command line: scenarios of real nodes in network namespaces."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from scripts.networks.converge import LIMIT_S, ConvergeError, Crowd, measure
from scripts.networks.devices import Lab, LabError
from scripts.networks.network import DEFAULT_DELAY_S, DEFAULT_LOSS, Network, NotPermittedError, enter_own_namespaces
from scripts.networks.scenarios import SCENARIOS

EXIT_NOT_PERMITTED = 77
"""What test runners take for `skipped`."""
CONVERGE = "converge"


def play(name: str, network: Network, minutes: float, keep_logs: bool) -> dict[str, Any]:
    """Figures of one scenario; raises LabError."""
    with Lab(network, minutes) as lab:
        try:
            return SCENARIOS[name].play(lab)
        except (LabError, KeyError) as exc:
            logs = "\n".join(f"--- device {device.index}\n{device.log()[-3000:]}" for device in lab.devices)
            raise LabError(f"{exc}\n{logs}" if keep_logs else str(exc)) from exc


def converge(network: Network, changes: int) -> dict[str, Any]:
    """Figures of `scripts/converge` with every node in a namespace of its own."""
    folders = tempfile.TemporaryDirectory(prefix="kekahyde-converge-")
    with network, folders as folder, Crowd(network.size, Path(folder), network) as crowd:
        try:
            figures = measure(crowd, changes, network.seed)
        except ConvergeError as exc:
            raise LabError(str(exc)) from exc
    if figures["p99_s"] > LIMIT_S:
        raise LabError(f"99 % of changes took up to {figures['p99_s']} s to be known by all, limit {LIMIT_S:g} s")
    return figures


@click.command(epilog="Exit codes: 0 all as they should, 1 not, 2 wrong usage, 77 not possible on this machine.")
@click.argument("scenarios", nargs=-1, type=click.Choice([*SCENARIOS, CONVERGE]))
@click.option("--delay-ms", default=DEFAULT_DELAY_S * 1e3, show_default=True, type=click.FloatRange(0, 1000))
@click.option(
    "--loss", default=DEFAULT_LOSS, show_default=True, type=click.FloatRange(0, 0.5), help="Share of frames."
)
@click.option("--mbit", default=0.0, type=click.FloatRange(0, 10_000), help="What each device can send a second.")
@click.option("--seed", default=1, show_default=True, help="Which frames are lost.")
@click.option("--wire", type=click.Choice(["netem", "switch"]), help="[default: netem where the kernel has it]")
@click.option("--nodes", default=32, show_default=True, type=click.IntRange(2, 200), help="Of `converge`.")
@click.option("--changes", default=40, show_default=True, type=click.IntRange(1), help="Of `converge`.")
@click.option("--minutes", default=0.5, show_default=True, type=click.FloatRange(0.1, 600), help="Of `weather`.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line for each scenario.")
@click.option("--logs", is_flag=True, help="The nodes' logs where a scenario fails.")
def main(
    scenarios: tuple[str, ...],
    delay_ms: float,
    loss: float,
    mbit: float,
    seed: int,
    wire: str | None,
    nodes: int,
    changes: int,
    minutes: float,
    as_json: bool,
    logs: bool,
) -> None:
    """Play SCENARIOS (by default all but `converge` and `bandwidth`): each device a namespace, a node a process."""
    good = True
    for name in scenarios or [name for name in SCENARIOS if SCENARIOS[name].by_default]:
        size = nodes if name == CONVERGE else SCENARIOS[name].size
        network = Network(size, delay_ms / 1e3, loss, seed, wire or "", mbit * 1e6 / 8)
        began = time.monotonic()
        try:
            figures = converge(network, changes) if name == CONVERGE else play(name, network, minutes, logs)
            failure = None
        except LabError as exc:
            figures, failure, good = {}, str(exc), False
        facts = {"scenario": name, "good": failure is None, "wire": str(network), "took_s": time.monotonic() - began}
        _say(facts | rounded(figures) | ({} if failure is None else {"failure": failure}), as_json)
    sys.exit(0 if good else 1)


def rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}


def _say(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rounded(facts)))
        return
    name = facts["scenario"]
    click.echo(f"{'good' if facts['good'] else 'FAILED'}: {name} ({facts['took_s']:.1f} s)")
    click.echo(f"     {SCENARIOS[name].story}" if name in SCENARIOS else "     Many nodes know of a change.")
    for key, value in facts.items():
        if key not in ("scenario", "good", "took_s"):
            click.echo(f"     {key:<28} {value}")


if __name__ == "__main__":
    try:
        enter_own_namespaces()
    except NotPermittedError as exc:
        click.echo(f"skipped: network namespaces are not possible here: {exc}", err=True)
        sys.exit(EXIT_NOT_PERMITTED)
    main(prog_name="scripts/netlab")
