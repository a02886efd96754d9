"""`join`: enter the swarm of an invitation."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import click

from node.cli.narrate import hint, say
from node.cli.options import EXIT_CODES, data_dir_option, json_option
from node.gateway.client.client import call_node
from node.paths import DataDir
from node.swarm.credentials import ENVIRONMENT_KEY
from node.swarm.joining import join_swarm, joined_facts, read_pasted
from protocol.finding.invitation import MAX_INVITATION_CHARACTERS


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

    The key and the addresses are saved in the data directory. A node that runs on it starts again and is then in the
    swarm; else the next node that starts on it is. The models that the invitation names are trusted.
    """
    text = _read(line)
    invitation = read_pasted(text, time.time())
    directory = DataDir.open(data_dir)
    lock = directory.lock()
    if lock is None:
        facts = call_node(data_dir, "join", line=text, replace=replace)
        call_node(data_dir, "restart")
    else:
        with lock:
            me = directory.identity().peer_id
            facts = joined_facts(join_swarm(directory.path, invitation, replace, me), invitation)
        if ENVIRONMENT_KEY in os.environ:
            say(f"note: {ENVIRONMENT_KEY} is set and overrides the swarm that you joined: unset it")
    if facts["left"] is not None:
        say(f"left the swarm {facts['left']}")
    if as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(f"joined the swarm {facts['swarm']}")
    names = ", ".join(model["name"] for model in facts["models"]) or "none"
    addresses = f"{len(facts['addrs'])} address{'' if len(facts['addrs']) == 1 else 'es'}"
    then = "the node here starts again in it" if lock is None else f"start the node with: {hint(data_dir)}"
    say(f"{addresses}, models: {names}; {then}")


def _read(line: str) -> str:
    if line != "-":
        return line
    if sys.stdin.isatty():
        say("paste the invitation and press Enter:")
        return sys.stdin.readline(MAX_INVITATION_CHARACTERS + 2)
    return sys.stdin.read(MAX_INVITATION_CHARACTERS + 2)
