"""`lend`: what this device computes for others, and the owner's rules for it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from node.cli.narrate import say
from node.cli.options import EXIT_CODES, MemoryType, data_dir_option, json_option
from node.gateway.client.client import call_node

ANY = "any"


class HoursType(click.ParamType[Any]):
    """Two hours of the day, or `any`."""

    name = "hours"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, list) or value == ANY:
            return value
        match = re.fullmatch(r"(\d{1,2})\s*-\s*(\d{1,2})", str(value).strip())
        if match is None:
            self.fail(f"{value!r} are not hours: write them like 22-6, or any", param, ctx)
        return [int(match[1]), int(match[2])]


@click.command(epilog=EXIT_CODES)
@click.option("--pause/--resume", "paused", default=None, help="Compute nothing for others, or again.")
@click.option(
    "--only-idle/--always", "only_idle", default=None, help="Only while other programs leave the processors alone."
)
@click.option(
    "--hours", type=HoursType(), default=None, help="Only from one hour to another, such as 22-6; any: always."
)
@click.option("--monthly", default=None, help="Most bytes for others in a month, such as 50GiB; any: no limit.")
@click.option(
    "--replicate/--no-replicate",
    "replicate",
    default=None,
    help="Hold parts of models that members publish, within --memory. [default: not in an open swarm]",
)
@data_dir_option
@json_option
def lend(
    paused: bool | None,
    only_idle: bool | None,
    hours: Any,
    monthly: str | None,
    replicate: bool | None,
    data_dir: Path,
    as_json: bool,
) -> None:
    """Show what the node here computes for others, or say when it does. The rules are kept.

    Threads and memory are limited when the node starts: --threads, --memory.
    """
    changes: dict[str, Any] = {"paused": paused, "only_idle": only_idle, "hours": hours, "replicate": replicate}
    changes = {name: None if value == ANY else value for name, value in changes.items() if value is not None}
    if monthly is not None:
        changes["monthly_bytes"] = None if monthly == ANY else MemoryType().convert(monthly, None, None)
    if changes:
        call_node(data_dir, "lending_set", **changes)
    facts = call_node(data_dir, "lending")
    if as_json:
        click.echo(json.dumps(facts))
        return
    for one in facts["borrowers"]:
        who = one["name"] or f"…{one['peer_id'][-8:]}"
        click.echo(
            f"{who}  {one['model']}  {one['requests']} requests  {one['rows']} rows  {_bytes(one['num_bytes'])}"
        )
    say(f"this device computes for others: {'yes' if facts['refusal'] is None else 'no, ' + facts['refusal']}")
    say(f"{_bytes(facts['month_bytes'])} this month; {_rules(facts['rules'])}")
    say(f"it holds parts of models that members publish: {'yes' if facts['replicates'] else 'no'}")


def _rules(rules: dict[str, Any]) -> str:
    parts = ["only while other programs leave the processors alone"] if rules["only_idle"] else []
    if rules["hours"] is not None:
        parts.append(f"from {rules['hours'][0]} to {rules['hours'][1]} o'clock")
    if rules["monthly_bytes"] is not None:
        parts.append(f"at most {_bytes(rules['monthly_bytes'])} a month")
    return "; ".join(parts) or "no limits"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
