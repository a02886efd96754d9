"""`import` and `models`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from msgspec.structs import asdict

from node.cli.narrate import hint, say
from node.cli.options import EXIT_CODES, data_dir_option, json_option, publish_option
from node.cli.publishing import publish_new
from node.errors import ConfigError, ModelNotFoundError
from node.gateway.client.client import call_node
from node.gateway.client.connection import node_runs
from node.paths import DataDir
from node.store.library import Library, ModelSummary
from node.transfer.published import PublishedModels
from node.transfer.replicator import names_of_replicas
from protocol.membership.records import MAX_PUBLISHED_MODELS


@click.command("import", epilog=EXIT_CODES)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", default=None, help="Name of the model. Default: the name of the folder or file.")
@publish_option
@data_dir_option
@json_option
def import_model(path: Path, name: str | None, publish: bool, data_dir: Path, as_json: bool) -> None:
    """Import PATH, a folder with a Hugging Face checkpoint or a GGUF file, as a model that can be run and served.

    The members of your swarm are asked to hold parts of it.
    """
    directory = DataDir.open(data_dir)
    library = Library(directory.models)
    imported = library.import_folder(path, name)
    model = next(model for model in library.list() if model.model_id == imported.model_id)
    called = imported.name or (model.names[0] if model.names else imported.model_id[:16])
    if as_json:
        click.echo(json.dumps({"name": called, "model_id": imported.model_id}))
    else:
        click.echo(imported.model_id)
    if publish:
        publish_new(directory, imported.model_id)
    if not as_json:
        words = f"run --model {called}"
        say(f"use it with: {hint(data_dir, words)}" + ("" if model.chat else " 'Once upon a time'"))


@click.group(invoke_without_command=True, epilog=EXIT_CODES)
@data_dir_option
@json_option
@click.pass_context
def models(context: click.Context, data_dir: Path, as_json: bool) -> None:
    """List the models of this data directory; `models show` tells more of one, `models rm` deletes one."""
    if context.invoked_subcommand is not None:
        return
    directory = DataDir.open(data_dir)
    library = Library(directory.models)
    found, parts = library.list(), library.parts()
    published = {model.model_id for model in PublishedModels(directory.published).all()}
    pads: dict[str, int] = call_node(directory.path, "pads")["rows"] if node_runs(directory.path) else {}
    if as_json:
        own = [
            {"published": model.model_id in published, "pads_ready": pads.get(model.model_id, 0)} for model in found
        ]
        listed = [_as_json(model) | more for model, more in zip(found, own, strict=True)]
        click.echo(json.dumps({"models": listed, "parts": [asdict(part) for part in parts]}))
        return
    if not found and not parts:
        say("no models yet: `kekahyde-node import PATH` adds one; `story` comes with the program")
    for model in found:
        size = f"{model.num_weights / 1e6:.1f} M weights"
        if model.held_bytes < model.weights_bytes:
            size += f", {model.held_bytes / model.weights_bytes:.0%} here"
        name = ", ".join(model.names) or "-"
        remarks = [model.problem or ("on the swarm" if model.model_id in published else "")]
        if model.model_id in pads:
            remarks.append(f"pads for {pads[model.model_id]} tokens")
        remark = ", ".join(filter(None, remarks))
        _print_model(name, model.model_id, model.model_type, size, model.disk_bytes, remark)
    names = names_of_replicas(directory.replicas)
    for part in parts:
        size = f"{part.held_bytes / part.weights_bytes:.0%} here"
        name = names.get(part.model_id, "-")
        _print_model(name, part.model_id, part.model_type, size, part.disk_bytes, "a part, for others")


def _print_model(name: str, model_id: str, family: str, size: str, disk_bytes: int, remark: str) -> None:
    disk = f"{disk_bytes / 1e6:.1f} MB"
    click.echo(f"{name:<24} {model_id[:16]} {family:<8} {size:>28} {disk:>12}  {remark}".rstrip())


@models.command("publish", epilog=EXIT_CODES)
@click.argument("model")
@data_dir_option
@json_option
def publish_model(model: str, data_dir: Path, as_json: bool) -> None:
    """Put MODEL on the swarm: its members hold parts of it as they have room. An import or a pull does so itself, but
    in an open swarm."""
    directory = DataDir.open(data_dir)
    if node_runs(directory.path):
        told = call_node(directory.path, "publish", model=model)
        model_id, ended = told["model_id"], told["ended"]
    else:
        library = Library(directory.models)
        model_id = library.identify(model)
        if not any(known.model_id == model_id and known.is_whole for known in library.list()):
            pulling = hint(data_dir, f"pull {model_id}")
            raise ConfigError(f"only a part of {model} is here: `{pulling}` fetches the rest, then publish it")
        with directory.alone():
            ended = PublishedModels(directory.published).add(model_id, by_hand=True)
    if as_json:
        click.echo(json.dumps({"model_id": model_id, "ended": ended}))
        return
    when = "" if node_runs(directory.path) else " as soon as a node runs here"
    say(f"{model} ({model_id[:16]}) is on the swarm{when}")
    for other in ended:
        say(f"model {other[:16]} is not any longer: a device publishes at most {MAX_PUBLISHED_MODELS}")


@models.command("unpublish", epilog=EXIT_CODES)
@click.argument("model")
@data_dir_option
def unpublish_model(model: str, data_dir: Path) -> None:
    """Take MODEL off the swarm: members drop their parts of it. It stays here."""
    directory = DataDir.open(data_dir)
    if node_runs(directory.path):
        call_node(directory.path, "unpublish", model=model)
    else:
        with directory.alone():
            if not PublishedModels(directory.published).remove(Library(directory.models).identify(model)):
                raise ConfigError(f"{model} is not published")
    say(f"{model} is not published any longer")


@models.command(epilog=EXIT_CODES)
@click.argument("text")
@data_dir_option
@json_option
def search(text: str, data_dir: Path, as_json: bool) -> None:
    """Find models whose names hold TEXT: short names that `pull` knows, then repositories of the Hugging Face hub."""
    from node.hub.search import search_hub, short_names_like

    short = short_names_like(text)
    if not as_json:
        for name, repo in short.items():
            click.echo(f"{name:<58} {repo}")
    found = search_hub(text)
    if as_json:
        listed = [asdict(model) | {"runs_here": model.runs_here} for model in found]
        click.echo(json.dumps({"short_names": short, "models": listed}))
        return
    for model in found:
        size = f"{model.num_weights / 1e6:,.0f} M weights" if model.num_weights else "-"
        remarks = ["accept its terms first"] if model.gated else []
        if model.runs_here is False:
            remarks.append(f"{model.model_type} does not run here")
        click.echo(f"{model.repo:<58} {size:>20} {model.downloads:>12,} downloads  {', '.join(remarks)}".rstrip())
    if short or found:
        say(f"`{hint(data_dir, 'pull NAME')}` fetches one")
    else:
        say(f"no model is called {text!r}: search for a shorter part of its name")


@models.command(epilog=EXIT_CODES)
@click.argument("model")
@data_dir_option
@json_option
def show(model: str, data_dir: Path, as_json: bool) -> None:
    """Tell what is known of MODEL, a name or the beginning of an id."""
    directory = DataDir.open(data_dir)
    library = Library(directory.models)
    model_id = _identified(directory, library, model)
    summary = next((known for known in library.list() if known.model_id == model_id), None)
    if summary is None:
        raise ConfigError(f"{model} is not here as a whole: `{hint(data_dir, f'pull {model_id}')}` fetches the rest")
    facts = _as_json(summary) | {"held_by": _holders(directory, model_id)}
    if as_json:
        click.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        said = ", ".join(value) if isinstance(value, tuple | list) else "-" if value is None else value
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
    with folder.alone():
        PublishedModels(folder.published).remove(model_id)
        freed = library.remove(model_id)
    if as_json:
        click.echo(json.dumps({"model_id": model_id, "freed_bytes": freed}))
    else:
        say(f"{model} ({model_id[:16]}) is deleted: {freed / 1e6:.1f} MB")


def _identified(directory: DataDir, library: Library, model: str) -> str:
    """The id of a model here; a name that another device gave to a part of one counts too."""
    try:
        return library.identify(model)
    except ModelNotFoundError:
        held = {part.model_id for part in library.parts()}
        named = [model_id for model_id, name in names_of_replicas(directory.replicas).items() if name == model]
        found = [model_id for model_id in named if model_id in held]
        if len(found) != 1:
            raise
        return found[0]


def _holders(directory: DataDir, model_id: str) -> list[str]:
    """Who holds which layers of a model, as the node here knows; empty where none runs."""
    if not node_runs(directory.path):
        return []
    peers = call_node(directory.path, "peers")["peers"]
    return [
        f"{peer['name'] or '…' + peer['peer_id'][-6:]} (layers {peer['holds'][model_id] or '?'})"
        for peer in peers
        if peer["connected"] and model_id in peer["holds"]
    ]


def _as_json(model: ModelSummary) -> dict[str, Any]:
    name = model.names[0] if model.names else model.model_id
    return {"name": name, "family": model.model_type, **asdict(model)}
