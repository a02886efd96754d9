"""`id` and `version`: facts about this node."""

from __future__ import annotations

import json
from pathlib import Path

import click

from node.cli.options import EXIT_CODES, data_dir_option, json_option
from node.errors import KekahydeError
from node.gateway.client.client import facts_of_node
from node.paths import DataDir
from node.version import VERSION
from protocol.limits import PROTOCOL_VERSION


@click.command("id", epilog=EXIT_CODES)
@data_dir_option
@json_option
def identity(data_dir: Path, as_json: bool) -> None:
    """Print the PeerID of this data directory; with --json also the address of its node for programs, if one runs."""
    peer_id = DataDir.open(data_dir).identity().peer_id
    if not as_json:
        click.echo(peer_id)
        return
    try:
        gateway = facts_of_node(data_dir).get("gateway")
    except KekahydeError:
        gateway = None
    click.echo(json.dumps({"peer_id": peer_id, "gateway": gateway}))


@click.command(epilog=EXIT_CODES)
@json_option
def version(as_json: bool) -> None:
    """Print the version of the program and of the protocol."""
    facts = {"version": VERSION, "protocol": f"kek/{PROTOCOL_VERSION}"}
    click.echo(json.dumps(facts) if as_json else f"kekahyde {VERSION} (kek/{PROTOCOL_VERSION})")
