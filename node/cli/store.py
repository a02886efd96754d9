"""`import` and `models`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from msgspec.structs import asdict

from node.cli.narrate import say
from node.cli.options import EXIT_CODES, data_dir_option, json_option
from node.errors import ConfigError
from node.gateway.client.connection import node_runs
from node.paths import DataDir
from node.store.library import Library, ModelSummary


@click.command("import", epilog=EXIT_CODES)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", default=None, help="Name of the model. Default: the name of the folder or file.")
@data_dir_option
@json_option
def import_model(path: Path, name: str | None, data_dir: Path, as_json: bool) -> None:
    """Import PATH, a folder with a Hugging Face checkpoint or a GGUF file, as a model that can be run and served."""
    library = Library(DataDir.open(data_dir).models)
    imported = library.import_folder(path, name)
    names = next(model.names for model in library.list() if model.model_id == imported.model_id)
    called = imported.name or (names[0] if names else imported.model_id[:16])
    if as_json:
        click.echo(json.dumps({"name": called, "model_id": imported.model_id}))
    else:
        click.echo(imported.model_id)
        say(f"use it with: kekahyde-node run --model {called} 'Once upon a time'")


@click.group(invoke_without_command=True, epilog=EXIT_CODES)
@data_dir_option
@json_option
@click.pass_context
def models(context: click.Context, data_dir: Path, as_json: bool) -> None:
    """List the models of this data directory; `models show` tells more of one, `models rm` deletes one."""
    if context.invoked_subcommand is not None:
        return
    library = Library(DataDir.open(data_dir).models)
    found = library.list()
    if as_json:
        click.echo(json.dumps({"models": [_as_json(model) for model in found]}))
        return
    if not found:
        say("no models yet: `kekahyde-node import PATH` adds one; `story` comes with the program")
    for model in found:
        size = f"{model.num_weights / 1e6:.1f} M weights"
        if model.held_bytes < model.weights_bytes:
            size += f", {model.held_bytes / model.weights_bytes:.0%} here"
        name = ", ".join(model.names) or "-"
        disk = f"{library.disk_bytes(model.model_id) / 1e6:.1f} MB"
        click.echo(
            f"{name:<24} {model.model_id[:16]} {model.model_type:<8} {size:>28} {disk:>12}  "
            f"{model.problem or ''}".rstrip()
        )


@models.command(epilog=EXIT_CODES)
@click.argument("model")
@data_dir_option
@json_option
def show(model: str, data_dir: Path, as_json: bool) -> None:
    """Tell what is known of MODEL, a name or the beginning of an id."""
    library = Library(DataDir.open(data_dir).models)
    model_id = library.identify(model)
    summary = next((known for known in library.list() if known.model_id == model_id), None)
    if summary is None:
        raise ConfigError(f"{model} is not here as a whole: `kekahyde-node pull {model_id}` fetches the rest")
    facts = {**_as_json(summary), "disk_bytes": library.disk_bytes(model_id)}
    if as_json:
        click.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        said = ", ".join(value) if isinstance(value, tuple) else "-" if value is None else value
        click.echo(f"{name:<16} {said}")


@models.command(epilog=EXIT_CODES)
@click.argument("model")
@data_dir_option
@json_option
def rm(model: str, data_dir: Path, as_json: bool) -> None:
    """Delete MODEL from the disk, with all of its names. No node may run on the data directory."""
    folder = DataDir.open(data_dir)
    library = Library(folder.models)
    model_id = library.identify(model)
    if node_runs(folder.path):
        raise ConfigError(f"a node runs on {folder.path}: stop it, then remove the model")
    freed = library.remove(model_id)
    if as_json:
        click.echo(json.dumps({"model_id": model_id, "freed_bytes": freed}))
    else:
        say(f"{model} ({model_id[:16]}) is deleted: {freed / 1e6:.1f} MB")


def _as_json(model: ModelSummary) -> dict[str, Any]:
    name = model.names[0] if model.names else model.model_id
    return {"name": name, "family": model.model_type, **asdict(model)}
