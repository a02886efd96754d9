"""`import` and `models`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from msgspec.structs import asdict

from node.cli.narrate import say
from node.cli.options import EXIT_CODES, data_dir_option, json_option
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


@click.command(epilog=EXIT_CODES)
@data_dir_option
@json_option
def models(data_dir: Path, as_json: bool) -> None:
    """List the models of this data directory."""
    found = Library(DataDir.open(data_dir).models).list()
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
        click.echo(
            f"{name:<24} {model.model_id[:16]} {model.model_type:<8} {size:>28}  {model.problem or ''}".rstrip()
        )


def _as_json(model: ModelSummary) -> dict[str, Any]:
    name = model.names[0] if model.names else model.model_id
    return {"name": name, "family": model.model_type, **asdict(model)}
