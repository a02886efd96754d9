"""`name`: give devices names."""

from __future__ import annotations

import json
from pathlib import Path

import click

from node.cli.narrate import say
from node.cli.options import EXIT_CODES, data_dir_option, json_option
from node.errors import NodeNotRunningError
from node.gateway.client.client import call_node
from node.paths import DataDir
from node.swarm.device_names import DeviceNames
from protocol.identity import peer_id_of, public_key_of


@click.command(epilog=EXIT_CODES)
@click.argument("words", nargs=-1, metavar="[PEER] NAME")
@click.option("--remove", is_flag=True, help="Remove the name that was given here; give PEER alone.")
@data_dir_option
@json_option
def name(words: tuple[str, ...], remove: bool, data_dir: Path, as_json: bool) -> None:
    """Give this device a NAME, which peers see from their next connection on; with PEER, give a peer a name that only
    this device shows.

    PEER is the name that it has now, its PeerID, or the end of it. Commands and the interface take names for peers.
    """
    if remove:
        words = (*words, "")
    if not 1 <= len(words) <= 2 or (remove and len(words) != 2):
        raise click.UsageError("give NAME for this device, or PEER NAME; with --remove only PEER")
    peer, new = words if len(words) == 2 else (None, words[0])
    result = _give(data_dir, peer, new)
    if as_json:
        click.echo(json.dumps(result))
    else:
        say(
            f"{result['peer_id']} is called {result['name']}" if new else f"{result['peer_id']} has no name from here"
        )


def _give(data_dir: Path, peer: str | None, new: str) -> dict[str, str]:
    """Ask the running node; without one, change the file."""
    try:
        return call_node(data_dir, "name", name=new, **({} if peer is None else {"peer": peer}))
    except NodeNotRunningError:
        directory = DataDir.open(data_dir)
        with directory.alone():
            names = DeviceNames(directory.names)
            meant = next((peer_id for peer_id, its in names.all().items() if its == peer), peer)
            peer_id = directory.identity().peer_id if meant is None else peer_id_of(public_key_of(meant))
            names.give(peer_id, new)
        return {"peer_id": peer_id, "name": new.strip()}
