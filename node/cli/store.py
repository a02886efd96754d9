"""`import` and `models`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from node.cli.narrate import say
from node.cli.options import data_dir_option, json_option
from node.paths import DataDir
from node.store.importer import import_checkpoint
from node.store.library import Library


@click.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", default=None, help="What to call it; the folder's name by default.")
@data_dir_option
@json_option
def import_model(path: Path, name: str | None, data_dir: Path, as_json: bool) -> None:
    """Turn the Hugging Face checkpoint in folder PATH into a model that can be run and served."""
    imported = import_checkpoint(path, DataDir.open(data_dir).models, name)
    if as_json:
        click.echo(json.dumps({"name": imported.name, "model_id": imported.model_id}))
    else:
        click.echo(imported.model_id)
        say(f"imported as {imported.name}: kekahyde-node run --model {imported.name} 'Once upon a time'")


@click.command()
@data_dir_option
@json_option
def models(data_dir: Path, as_json: bool) -> None:
    """List the models of this data directory."""
    entries = [
        {
            "name": model.name,
            "model_id": model.model_id,
            "type": model.config.model_type,
            "layers": model.config.num_layers,
            "units": len(model.units),
            "bytes": sum(ref.num_bytes for ref in model.units),
            "context_length": model.config.context_length,
        }
        for model in Library(DataDir.open(data_dir).models).list()
    ]
    if as_json:
        click.echo(json.dumps({"models": entries}))
        return
    if not entries:
        say("no models yet: `kekahyde-node import FOLDER` adds one; `story` comes with the program")
    for entry in entries:
        size = f"{int(str(entry['bytes'])) / 1e6:.1f} MB"
        click.echo(f"{entry['name']:<24} {str(entry['model_id'])[:16]} {entry['type']:<8} {size:>10}")
