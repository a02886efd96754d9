"""`invite`: print an invitation to the swarm of this data directory."""

from __future__ import annotations

import json
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from node.cli.duration import DurationType
from node.cli.narrate import say
from node.cli.options import EXIT_CODES, data_dir_option, json_option
from node.errors import NodeNotRunningError
from node.gateway.client.client import call_node
from node.paths import DataDir
from node.swarm.credentials import known_addresses
from node.swarm.inviting import MAX_EXPIRY_S, key_is_shared, offline_swarm, write_invitation
from protocol.finding.invitation import InvitedModel

QR_BORDER = 2


@click.command(epilog=EXIT_CODES)
@click.option(
    "--expires",
    "expires_s",
    type=DurationType(MAX_EXPIRY_S),
    default="24h",
    show_default=True,
    help="How long others can join with the line. The key in it does not expire.",
)
@click.option(
    "--qr/--no-qr", default=None, help="Print a QR code on stderr. [default: if the terminal is wide enough]"
)
@data_dir_option
@json_option
def invite(expires_s: float, qr: bool | None, data_dir: Path, as_json: bool) -> None:
    """Print an invitation: one line with which another device joins the swarm (`kekahyde-node join LINE`).

    The line is a secret: it holds the swarm's key, and whoever reads it can come in, even after it has expired. It is
    the last line on stdout. If no node runs here, the line has the addresses of the other known members.
    """
    try:
        written = call_node(data_dir, "invite", expires_s=expires_s)
    except NodeNotRunningError:
        written = _offline(data_dir, expires_s)
    if written["note"]:
        say(f"note: {written['note']}")
    line = str(written["line"])
    _draw(line, qr)
    ends = datetime.fromtimestamp(written["expires"], UTC)
    say(f"until {ends:%Y-%m-%d %H:%M} UTC, run on the other device: kekahyde-node join LINE")
    click.echo(json.dumps(written) if as_json else line)


def _offline(data_dir: Path, expires_s: float) -> dict[str, Any]:
    swarm = offline_swarm(data_dir)
    models = [InvitedModel(model.model_id, model.name) for model in swarm.models]
    addresses = known_addresses(swarm, data_dir)
    written = write_invitation(swarm.key, (), addresses, models, int(time.time() + expires_s))
    with DataDir(data_dir).alone():
        key_is_shared(data_dir, swarm.key)
    return {
        "line": written.line,
        "expires": written.invitation.expires_unix_s,
        "addrs": [str(address) for address in written.invitation.addresses],
        "note": written.note,
    }


def _draw(line: str, wanted: bool | None) -> None:
    """Print a QR code if it was asked for, or if stderr is a terminal that is wide enough."""
    if wanted is False or (wanted is None and not sys.stderr.isatty()):
        return
    import segno

    code = segno.make(line, error="l", micro=False)
    width, _ = code.symbol_size(border=QR_BORDER)
    if wanted or width <= shutil.get_terminal_size().columns:
        code.terminal(out=sys.stderr, border=QR_BORDER, compact=True)
    else:
        say(f"(the QR code of this line needs {width} columns; --qr prints it anyway)")
