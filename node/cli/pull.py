"""`pull`: fetch a model from the Hugging Face hub, or from the peers of the node that runs here."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

import click

from node.cli.narrate import hint, say
from node.cli.options import EXIT_CODES, data_dir_option, json_option, lend_option, publish_option, thin_option
from node.cli.progress import OnBytes, progress_shown, sources_words
from node.cli.publishing import publish_new
from node.cli.thin import library_of
from node.errors import OperationError
from node.gateway.client.client import call_node
from node.paths import DataDir
from node.planning.placement import Lend, kinds_not_kept
from node.store.library import Library
from node.store.names import is_model_id

POLL_S = 0.2


@click.command(epilog=EXIT_CODES)
@click.argument("model")
@click.option("--name", default=None, help="Name of the model. Default: the name of the repository.")
@thin_option
@lend_option
@publish_option
@data_dir_option
@json_option
def pull(model: str, name: str | None, thin: bool, lend: str, publish: bool, data_dir: Path, as_json: bool) -> None:
    """Fetch MODEL: ORG/NAME[@REVISION] of the Hugging Face hub, or the id of a model that peers have.

    From the hub only safetensors, tokenizer and configuration are fetched. An interrupted pull continues where it
    stopped. HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE apply. A commit's hash as REVISION pins the version.
    A model id is fetched by the node that runs on --data-dir. The members of your swarm are asked to hold parts of a
    model that comes from the hub.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    directory = DataDir.open(data_dir)
    with progress_shown() as on_bytes:
        if is_model_id(model):
            model_id = from_peers(directory, model, on_bytes, thin, Lend(lend), name)
        else:
            library = library_of(directory, kinds_not_kept(thin, Lend(lend)))
            model_id = _from_hub(library, model, name, on_bytes)
            publish = publish and library.open(model_id).is_whole
    if publish and not is_model_id(model):
        publish_new(directory, model_id)
    library = Library(directory.models)
    called = next((known for known, other in library.named().items() if other == model_id), model_id[:16])
    if as_json:
        click.echo(json.dumps({"name": called, "model_id": model_id}))
    else:
        click.echo(model_id)
        chat = library.open(model_id).chat_template is not None
        asked = "--chat 'What is the capital of France?'" if chat else "'Once upon a time'"
        say(f"use it with: {hint(data_dir, f'run --model {called} {asked}')}")


def _from_hub(library: Library, model: str, name: str | None, on_bytes: OnBytes) -> str:
    from node.hub.pull import HubPull
    from node.hub.reference import parse_reference

    pulling = HubPull(
        parse_reference(model),
        library,
        lambda progress: on_bytes(progress.done_bytes, progress.total_bytes, progress.step),
    )
    return pulling.run(name).model_id


def from_peers(
    directory: DataDir,
    model_id: str,
    on_bytes: OnBytes,
    thin: bool = False,
    lend: Lend = Lend.AUTO,
    name: str | None = None,
) -> str:
    """Let the running node fetch a model, and wait for it; an interruption stops the node's transfer too."""
    asked = {"model": model_id, **({"lend": lend.value, "thin": True} if thin else {})}
    if name is not None:
        asked["name"] = name
    job = call_node(directory.path, "pull", **asked)
    try:
        while job["state"] == "running":
            on_bytes(job["done_bytes"], job["total_bytes"], sources_words(job["sources"]))
            time.sleep(POLL_S)
            job = _job(call_node(directory.path, "transfers"), job["id"])
    except KeyboardInterrupt:
        call_node(directory.path, "pull_cancel", transfer=job["id"])
        raise
    if job["state"] != "done":
        raise OperationError(str(job["error"] or f"the transfer was {job['state']}"))
    on_bytes(job["done_bytes"], job["total_bytes"], "done")
    return model_id


def _job(answer: dict[str, Any], job_id: str) -> dict[str, Any]:
    found = next((job for job in answer["transfers"] if job["id"] == job_id), None)
    if found is None:
        raise OperationError(f"the node was restarted and lost the transfer {job_id}: pull again")
    return dict(found)


def _interrupt(*_signal: object) -> NoReturn:
    raise KeyboardInterrupt
