"""`join`: enter the swarm of an invitation."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import click

from node.cli.narrate import say
from node.cli.options import EXIT_CODES, data_dir_option, json_option
from node.errors import ConfigError
from node.paths import DataDir, default_data_dir
from node.swarm.credentials import ENVIRONMENT_KEY
from node.swarm.joining import join_swarm
from protocol.finding.invitation import MAX_INVITATION_CHARACTERS, Invitation, parse_invitation


@click.command(epilog=EXIT_CODES)
@click.argument("line")
@click.option(
    "--replace", is_flag=True, help="Leave the swarm that this data directory belongs to, and forget its key."
)
@data_dir_option
@json_option
def join(line: str, replace: bool, data_dir: Path, as_json: bool) -> None:
    """Join the swarm of an invitation. LINE is what `kekahyde-node invite` prints; `-` reads it from stdin.

    The line holds the swarm's key, and other users of this device can see the arguments of a command: if there are
    other users, use `-`.

    A data directory that belongs to another swarm joins only with --replace. The key from its own first start does
    not count as another swarm, while nobody was invited with it and no other member was met.

    The key and the addresses are saved in the data directory; the next node that starts on it is in the swarm. The
    models that the invitation names are trusted.
    """
    invitation = parse_invitation(_read(line), time.time())
    directory = DataDir.open(data_dir)
    lock = directory.lock()
    if lock is None:
        raise ConfigError(f"a node runs on {data_dir}: stop it, join, and start it again")
    with lock:
        joined = join_swarm(directory.path, invitation, replace)
    if joined.left is not None:
        say(f"left the swarm {joined.left}")
    if ENVIRONMENT_KEY in os.environ:
        say(f"note: {ENVIRONMENT_KEY} is set and overrides the swarm that you joined: unset it")
    if as_json:
        click.echo(json.dumps(_facts(joined.swarm.name, invitation)))
        return
    click.echo(f"joined the swarm {joined.swarm.name}")
    names = ", ".join(model.name for model in invitation.models) or "none"
    say(f"{len(invitation.addresses)} addresses, models: {names}; start the node with: {_start(data_dir)}")


def _read(line: str) -> str:
    if line != "-":
        return line
    if sys.stdin.isatty():
        say("paste the invitation and press Enter:")
        return sys.stdin.readline(MAX_INVITATION_CHARACTERS + 2)
    return sys.stdin.read(MAX_INVITATION_CHARACTERS + 2)


def _facts(name: str, invitation: Invitation) -> dict[str, object]:
    return {
        "swarm": name,
        "open": invitation.swarm_key is None,
        "addrs": [str(address) for address in invitation.addresses],
        "models": [{"name": model.name, "model_id": model.model_id.hex()} for model in invitation.models],
    }


def _start(data_dir: Path) -> str:
    return "kekahyde-node" if data_dir == default_data_dir() else f"kekahyde-node --data-dir {data_dir}"
