"""`peers`: all peers that the running node knows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console, JustifyMethod
from rich.table import Table

from node.cli.narrate import say
from node.cli.options import EXIT_CODES, data_dir_option, json_option
from node.gateway.client.client import call_node, facts_of_node

PIPED_WIDTH = 200
WHOLE_IDS_WIDTH = 130
MARKS = {"alive": "● alive", "suspect": "◐ suspect", "dead": "○ dead", "left": "· left"}


@click.command(epilog=EXIT_CODES)
@data_dir_option
@json_option
def peers(data_dir: Path, as_json: bool) -> None:
    """Show all peers that the node on the data directory knows."""
    result = call_node(data_dir, "peers")
    if as_json:
        click.echo(json.dumps(result | {"gateway": facts_of_node(data_dir).get("gateway")}))
        return
    if not result["peers"]:
        say("no peers yet: `kekahyde-node invite` prints a line with which others can `join`")
        return
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)
    whole_ids = console.width >= WHOLE_IDS_WIDTH
    console.print(_table(result["peers"], whole_ids))
    if not whole_ids:
        say("`ban`, `pair`, `allow` and `name` take a name or these ends; --json shows whole PeerIDs")


def _table(peers: list[dict[str, Any]], whole_ids: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "peer", "state", "role", "RTT ms", "GMAC/s", "layers", "memory", "version", "excluded"):
        justify: JustifyMethod = "right" if heading in ("RTT ms", "GMAC/s", "memory") else "left"
        table.add_column(heading, justify=justify, no_wrap=heading != "excluded")
    for peer in peers:
        table.add_row(
            peer["name"] or "-",
            peer["peer_id"] if whole_ids else f"…{peer['peer_id'][-8:]}",
            MARKS[peer["state"]],
            "+".join(peer["roles"]) or "-",
            "-" if peer["rtt_ms"] is None else f"{peer['rtt_ms']:.1f}",
            f"{peer['speed_gmacs']:.1f}",
            peer["layers"] or "-",
            f"{peer['memory_bytes'] / 1e9:.1f} GB" if peer["memory_bytes"] else "-",
            peer["version"],
            peer["excluded"] or "",
        )
    return table
