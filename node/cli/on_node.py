"""`run` with a node that already runs: the same events, read from its socket."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from msgspec.structs import asdict

from node.engine.request import Completed, Event, Note, Prefilled, Queued, Started, Token
from node.gateway.client.connection import node_runs
from node.model.sampling import SamplingParams
from node.planning.placement import Lend
from node.privacy import Privacy
from node.session.receipt import Receipt
from node.store.stored import StoredModel

OWN_NODE_OPTIONS = (
    "listen",
    "bootstrap",
    "swarm_key",
    "is_open",
    "min_peers",
    "peer_timeout",
    "lanes",
    "pad_rows",
    "recheck",
    "deadline",
    "threads",
)
"""Options of `run` that configure a node: with any of them, `run` starts its own node."""


def node_does_it(data_dir: Path) -> bool:
    """Whether a node runs on the data directory and no option asks for a separate one."""
    context = click.get_current_context()
    given = [context.get_parameter_source(name) for name in OWN_NODE_OPTIONS]
    return ParameterSource.COMMANDLINE not in given and node_runs(data_dir)


def asked_of(
    model: StoredModel, prompt: Mapping[str, Any], params: SamplingParams, privacy: Privacy, lend: Lend
) -> dict[str, Any]:
    """The fields of `generate` (SPEC.md, Gateway).

    Args:
        prompt: its `prompt` or `messages`.
    """
    sampling = asdict(params)
    modes = {"privacy": privacy.value, "lend": lend.value}
    return {**prompt, **sampling, "stop": list(params.stop), "model": model.model_id, **modes}


def answer_of_node(data_dir: Path, asked: dict[str, Any]) -> Iterator[Event]:
    """The events of the answer, as that node's engine sends them. Raises OperationError."""
    from node.gateway.client.generating import generate_on_node  # aiohttp: only where a node runs

    for event in generate_on_node(data_dir, **asked):
        match event["event"]:
            case "started":
                yield Started(event["mode"], event["model"], event["plan"], event["prompt_tokens"])
            case "note":
                yield Note(event["text"])
            case "queued":
                yield Queued(event["position"])
            case "prefill":
                yield Prefilled(event["done"], event["total"])
            case "token":
                yield Token(event["index"], event["id"], event["text"])
            case "receipt":
                yield Completed(Receipt.from_json(event["receipt"]))
