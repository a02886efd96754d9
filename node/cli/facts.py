"""`id` and `version`: facts about this node."""

from __future__ import annotations

import json
from pathlib import Path

import click

from node.cli.options import EXIT_CODES, data_dir_option, json_option
from node.paths import DataDir
from node.version import VERSION
from protocol.limits import PROTOCOL_VERSION


@click.command("id", epilog=EXIT_CODES)
@data_dir_option
@json_option
def identity(data_dir: Path, as_json: bool) -> None:
    """Print the PeerID of this data directory."""
    peer_id = DataDir.open(data_dir).identity().peer_id
    click.echo(json.dumps({"peer_id": peer_id}) if as_json else peer_id)


@click.command(epilog=EXIT_CODES)
@json_option
def version(as_json: bool) -> None:
    """Print the version of the program and of the protocol."""
    facts = {"version": VERSION, "protocol": f"kek/{PROTOCOL_VERSION}"}
    click.echo(json.dumps(facts) if as_json else f"kekahyde {VERSION} (kek/{PROTOCOL_VERSION})")
