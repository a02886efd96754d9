"""`ban` and `allow`: edit the ban list and the allow list of a running node or of its data directory."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from node.cli.duration import DurationType
from node.cli.narrate import say
from node.cli.options import EXIT_CODES, data_dir_option, json_option
from node.errors import NodeNotRunningError, OperationError
from node.gateway.client.client import call_node
from node.paths import DataDir
from node.swarm.access import AccessList, Verdict

MAX_ENTRY_S = 3650 * 86400.0

duration_option = click.option(
    "--for",
    "duration_s",
    type=DurationType(MAX_ENTRY_S),
    default=None,
    help="How long the entry counts: 90s, 30m, 24h, 7d. Without this option: for ever.",
)
reason_option = click.option("--reason", default="", help="A note that says why; `--list` shows it.")
list_option = click.option("--list", "is_listing", is_flag=True, help="Show both lists.")
remove_option = click.option("--remove", is_flag=True, help="Remove the peer from both lists.")


@click.command(epilog=EXIT_CODES)
@click.argument("peer_id", metavar="PEER", required=False)
@duration_option
@reason_option
@remove_option
@list_option
@data_dir_option
@json_option
def ban(peer_id: str | None, is_listing: bool, remove: bool, data_dir: Path, as_json: bool, **entry: Any) -> None:
    """Keep a peer out: it gets no link and no work. A node that runs on the data directory applies it at once, and
    knows a peer by its name or the end of its PeerID, too."""
    _edit("ban", Verdict.BAN, peer_id, is_listing, remove, data_dir, as_json, entry)


@click.command(epilog=EXIT_CODES)
@click.argument("peer_id", metavar="PEER", required=False)
@duration_option
@reason_option
@remove_option
@list_option
@click.option(
    "--only/--anybody", "only", default=None, help="Let in only the peers on this list, or every member of the swarm."
)
@data_dir_option
@json_option
def allow(
    peer_id: str | None,
    is_listing: bool,
    remove: bool,
    only: bool | None,
    data_dir: Path,
    as_json: bool,
    **entry: Any,
) -> None:
    """Put a peer on the list of those that are let in. With `--only`, nobody else is; without it, the list changes
    nothing. It does not let a peer read anything: for that, see `pair`."""
    if only is not None:
        _ask(data_dir, "access", only_allowed=only)
        say("only peers on the allow list are let in" if only else "every member of the swarm is let in")
        if peer_id is None and not is_listing:
            return
    _edit("allow", Verdict.ALLOW, peer_id, is_listing, remove, data_dir, as_json, entry)


def _edit(
    op: str,
    verdict: Verdict,
    peer_id: str | None,
    is_listing: bool,
    remove: bool,
    data_dir: Path,
    as_json: bool,
    entry: dict[str, Any],
) -> None:
    if is_listing or peer_id is None:
        if not is_listing:
            raise click.UsageError("give a PEER (`kekahyde-node peers` shows them), or --list")
        _show(_ask(data_dir, "access"), verdict, as_json)
        return
    given = {name: value for name, value in entry.items() if value is not None}
    result = _ask(data_dir, "forget", peer_id=peer_id) if remove else _ask(data_dir, op, peer_id=peer_id, **given)
    if as_json:
        click.echo(json.dumps(result))
    else:
        say(
            f"{result['peer_id']} is on no list any more"
            if remove
            else f"{result['entry']['peer_id']}: {verdict.value} {_until(result['entry'])}"
        )


def _ask(data_dir: Path, op: str, **arguments: Any) -> dict[str, Any]:
    """Ask the running node, or edit the files where no node runs."""
    try:
        return call_node(data_dir, op, **arguments)
    except NodeNotRunningError:
        directory = DataDir.open(data_dir)
        with directory.alone() if op != "access" or arguments else nullcontext():
            return _do_offline(AccessList(directory.path / "access.json", time.time), op, arguments)


def _do_offline(access: AccessList, op: str, arguments: dict[str, Any]) -> dict[str, Any]:
    match op:
        case "ban" | "allow":
            verdict = Verdict.BAN if op == "ban" else Verdict.ALLOW
            entry = access.put(
                arguments["peer_id"], verdict, arguments.get("duration_s"), arguments.get("reason", "")
            )
            return {"entry": entry.as_json()}
        case "forget":
            if not access.remove(arguments["peer_id"]):
                raise OperationError(
                    f"{arguments['peer_id']} is on no list: `kekahyde-node ban --list` shows the entries"
                )
            return {"peer_id": arguments["peer_id"]}
    if "only_allowed" in arguments:
        access.set_only_allowed(arguments["only_allowed"])
    return {"only_allowed": access.only_allowed, "entries": [entry.as_json() for entry in access.entries()]}


def _show(result: dict[str, Any], verdict: Verdict, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(result))
        return
    for entry in result["entries"]:
        if entry["verdict"] == verdict.value:
            reason = "".join(character for character in entry["reason"] if character.isprintable())
            click.echo(f"{entry['peer_id']}  {_until(entry)}  {reason}".rstrip())
    if verdict is Verdict.BAN and not any(entry["verdict"] == verdict.value for entry in result["entries"]):
        say("nobody is banned")
    if verdict is Verdict.ALLOW:
        is_only = result["only_allowed"]
        say("nobody else is let in" if is_only else "other members are let in too (`allow --only` changes that)")


def _until(entry: dict[str, Any]) -> str:
    if entry["until"] is None:
        return "for ever"
    return f"until {datetime.fromtimestamp(entry['until'], UTC):%Y-%m-%d %H:%M} UTC"
