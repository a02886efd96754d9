"""`scripts/bench predict`: what a large model costs over peers, by the planner's own cost model. Nothing is measured.

The figures of the devices are assumptions: those of a CPU are what this project's kernels reach on 2 cores with
AVX-512 (README, «Kernels»), those of a GPU about what an H100 reached with layers of 17 to 235 MB
(`scripts/gpu_check`: 0.1 to 1.2 TB/s with one row, 17 TMAC/s with 128 rows). Give others with `--peer-gbps` and
`--peer-gmacs`.
"""

from __future__ import annotations

import json

import click
from msgspec import Struct
from rich import box
from rich.console import Console
from rich.table import Table

from node.measures.peers import PeerFigures
from node.model.config import LAYER_KINDS, ModelConfig
from node.model.unit import UnitRef
from node.planning.cost import Cost, local_cost, remote_cost
from node.planning.figures import DeviceFigures, LaneFigures, Line
from node.planning.placement import PLACEMENTS
from node.planning.spans import SpanOffer, cut_spans, span_cost
from node.store.hf.config import parse_config
from protocol.identity import PeerId


class Shape(Struct, frozen=True):
    """The sizes of a dense model."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    groups: int
    vocabulary: int


SHAPES = {
    "8b": Shape(4096, 14336, 32, 32, 8, 128256),
    "32b": Shape(5120, 27648, 64, 40, 8, 152064),
    "70b": Shape(8192, 28672, 80, 64, 8, 128256),
}
"""Llama 3.1 8B, Qwen 2.5 32B and Llama 3.1 70B, by their config.json."""
LINKS = {"1gbit-0.3ms": (125e6, 0.0003), "1gbit-20ms": (125e6, 0.020), "100mbit-20ms": (12.5e6, 0.020)}
"""Bytes a second, and the round trip in seconds."""
EXCHANGE_S = 0.001
"""An exchange on one machine without its kernel (`scripts/bench exchange --shape 1.1b`)."""
CPU, GPU = (17e9, 45e9), (0.3e12, 17e12)
"""Multiply-accumulates a second with one row, for which all weights are read, and with many."""
FLOATS = Line(0.0002, 0.00002)
OWN_WORK = Line(0.0002, 4e-9)
"""The client's part of an exchange, by elements: pads, share, check, merge."""


def config_of(name: str) -> ModelConfig:
    """The architecture of a shape."""
    shape = SHAPES[name]
    raw = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.groups,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "eos_token_id": 2,
        "bos_token_id": 1,
    }
    return parse_config(raw, {}, name)


def units_of(config: ModelConfig) -> list[UnitRef]:
    """All units; their hashes only tell them apart."""
    places = [(layer, kind) for layer in range(config.num_layers) for kind in LAYER_KINDS]
    return [
        UnitRef(layer, kind, *config.unit_shape(kind), f"{layer}.{kind}".encode().ljust(32))
        for layer, kind in [*places, (None, "head")]
    ]


def costs_of(name: str, link: str, peers: int, peer: tuple[float, float], prompt: int) -> dict[str, Cost]:
    """By way of computing: the cost of a request."""
    units, (bytes_per_s, rtt_s) = units_of(config_of(name)), LINKS[link]
    layers = [ref for ref in units if ref.layer is not None]
    head = units[-1].num_inputs * units[-1].num_outputs
    linear = Line(1 / CPU[0] - 1 / CPU[1], 1 / CPU[1])
    own = DeviceFigures(0.001, head / CPU[0], FLOATS, linear, CPU[1], OWN_WORK)
    figures = PeerFigures(rtt_s + EXCHANGE_S, 0.0, *peer, bytes_per_s, True)
    lanes = [LaneFigures(figures, figures) for _ in range(peers // 2)]
    sharers = [LaneFigures(figures, None) for _ in range(peers)]
    costs = {"alone (if it fits)": local_cost(layers, own, prompt)}
    for lend, placement in PLACEMENTS.items():
        lent = [ref for ref in units if ref.layer is not None or placement.is_lent(ref)]
        if lanes:
            costs[f"split, lend {lend.value}"] = remote_cost(lent, own, lanes, prompt, 0, placement)
        if lend.value == "all":
            costs["strict, pads ahead, lend all"] = remote_cost(lent, own, sharers, prompt, 1 << 30, placement)
    offers = [
        SpanOffer(PeerId(f"p{index}"), frozenset(range(config_of(name).num_layers)), figures)
        for index in range(peers)
    ]
    spans = cut_spans(range(config_of(name).num_layers), offers)
    costs["own devices (trusted)"] = span_cost(
        layers, own, spans, {one.peer_id: one.figures for one in offers}, prompt
    )
    return costs


@click.command()
@click.option("--model", "name", type=click.Choice(sorted(SHAPES)), default="8b", show_default=True)
@click.option("--link", type=click.Choice(list(LINKS)), multiple=True, help="[default: all]")
@click.option("--peers", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option("--prompt", type=click.IntRange(1), default=500, show_default=True, help="Tokens of the prompt.")
@click.option("--gpu", is_flag=True, help="The peers have GPUs.")
@click.option("--peer-gbps", type=float, help="Weight bytes that a peer reads a second, in 10^9.")
@click.option("--peer-gmacs", type=float, help="Products that a peer computes a second with many rows, in 10^9.")
@click.option("--json", "as_json", is_flag=True)
def main(
    name: str,
    link: tuple[str, ...],
    peers: int,
    prompt: int,
    gpu: bool,
    peer_gbps: float | None,
    peer_gmacs: float | None,
    as_json: bool,
) -> None:
    """Predict what a model costs over peers."""
    assumed = GPU if gpu else CPU
    peer = (
        assumed[0] if peer_gbps is None else peer_gbps * 1e9,
        assumed[1] if peer_gmacs is None else peer_gmacs * 1e9,
    )
    links = link or tuple(LINKS)
    costs = {each: costs_of(name, each, peers, peer, prompt) for each in links}
    if as_json:
        rows = {each: {way: vars_of(cost) for way, cost in ways.items()} for each, ways in costs.items()}
        click.echo(json.dumps({"model": name, "peers": peers, "prompt": prompt, "gpu": gpu, "links": rows}))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("way", "exchanges", "MB a token", *(f"{each}: s a token, first" for each in links)):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for way in costs[links[0]]:
        first = costs[links[0]][way]
        times = [f"{costs[each][way].token_s:.2f}, {costs[each][way].ttft_s:.0f}" for each in links]
        table.add_row(way, str(first.exchanges), f"{(first.bytes_up + first.bytes_down) / 1e6:.1f}", *times)
    console = Console(highlight=False, width=140)
    kind = "GPU" if gpu else "CPU"
    console.print(
        f"{name}, {peers} peers with a {kind} (assumed), a prompt of {prompt} tokens; predicted, not measured"
    )
    console.print(table)


def vars_of(cost: Cost) -> dict[str, float]:
    """A cost as JSON."""
    return {name: getattr(cost, name) for name in cost.__struct_fields__}


if __name__ == "__main__":
    main(prog_name="scripts/bench predict")
