"""`key`: keys for programs on other devices."""

from __future__ import annotations

import json
from pathlib import Path

import click

from node.cli.narrate import say
from node.cli.options import EXIT_CODES, data_dir_option, json_option
from node.gateway.http.keys import KeyBook
from node.paths import DataDir
from node.privacy import Privacy

FLOORS = [mode.value for mode in (Privacy.SPLIT, Privacy.STRICT, Privacy.LOCAL)]


@click.group(epilog=EXIT_CODES)
def key() -> None:
    """Manage keys for programs on other devices, which ask a gateway beyond loopback (--gateway 0.0.0.0:11435).

    With a key a program may list models and ask for answers, and nothing else. A running node knows new keys at once.
    """


@key.command(epilog=EXIT_CODES)
@click.argument("name")
@click.option(
    "--min-privacy", type=click.Choice(FLOORS), default=None, help="Refuse requests that ask for less privacy."
)
@click.option("--per-minute", type=click.IntRange(1), default=None, help="Most requests in a minute.")
@data_dir_option
@json_option
def add(name: str, min_privacy: str | None, per_minute: int | None, data_dir: Path, as_json: bool) -> None:
    """Print a new key of this NAME. It is shown once: only its hash is kept."""
    least = None if min_privacy is None else Privacy(min_privacy)
    secret = _book(data_dir).add(name, least, per_minute)
    if as_json:
        click.echo(json.dumps({"name": name, "key": secret}))
    else:
        click.echo(secret)
        say("it is not shown again; programs send it as their API key")


@key.command("list", epilog=EXIT_CODES)
@data_dir_option
@json_option
def list_keys(data_dir: Path, as_json: bool) -> None:
    """List the names of all keys, with their limits."""
    keys = [
        {
            "name": one.name,
            "min_privacy": None if one.min_privacy is None else one.min_privacy.value,
            "per_minute": one.per_minute,
        }
        for one in _book(data_dir).all()
    ]
    if as_json:
        click.echo(json.dumps({"keys": keys}))
        return
    if not keys:
        say("no keys: `kekahyde-node key add NAME` makes one")
    for one in keys:
        least = f"at least {one['min_privacy']}" if one["min_privacy"] else "any privacy"
        rate = f"{one['per_minute']} a minute" if one["per_minute"] else "any number"
        click.echo(f"{one['name']:<24} {least:<18} {rate}")


@key.command(epilog=EXIT_CODES)
@click.argument("name")
@data_dir_option
def remove(name: str, data_dir: Path) -> None:
    """Remove the key of this NAME; programs that have it are refused from now on."""
    _book(data_dir).remove(name)
    say(f"the key {name} is removed")


def _book(data_dir: Path) -> KeyBook:
    return KeyBook(DataDir.open(data_dir).path)
