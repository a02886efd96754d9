"""`doctor`: what is wrong with this node or its surroundings, and what to do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from node.cli.narrate import say
from node.cli.options import DEFAULT_LISTEN, EXIT_CODES, AddressType, data_dir_option, json_option
from node.doctor.device import device_findings
from node.doctor.finding import Finding, Level, broken, finding_of, note, ok
from node.doctor.folder import folder_findings
from node.doctor.network import network_findings
from node.doctor.report import report
from node.errors import KekahydeError, NodeNotRunningError
from node.gateway.client.client import call_node, facts_of_node
from node.paths import DataDir
from node.places import socket_path
from protocol.multiaddr import Multiaddr

SIGNS = {Level.OK: ("ok  ", "green"), Level.NOTE: ("note", "yellow"), Level.BROKEN: ("FAIL", "red")}


@click.command(epilog=EXIT_CODES)
@click.option(
    "--listen",
    type=AddressType(allows_none=True),
    default=DEFAULT_LISTEN,
    show_default=True,
    help="The address at which a node would listen; used only where no node runs now.",
)
@click.option(
    "--report",
    "is_report",
    is_flag=True,
    help="Print a report to show to others, without identities, addresses, names and paths.",
)
@data_dir_option
@json_option
def doctor(listen: Multiaddr | None, is_report: bool, data_dir: Path, as_json: bool) -> None:
    """Check this node: keys, disk, clock, compiler, kernels, ports, mDNS, gateway, and the link to each peer.

    If a node runs on the data directory, it is asked too. The exit code is 1 if something is broken.
    """
    findings = [*device_findings(data_dir), *folder_findings(data_dir), *_node(data_dir, listen)]
    is_broken = any(finding.level is Level.BROKEN for finding in findings)
    if is_report:
        click.echo(json.dumps(report(findings, data_dir), indent=1, ensure_ascii=False))
    elif as_json:
        click.echo(json.dumps({"broken": is_broken, "findings": [finding.as_json() for finding in findings]}))
    else:
        for finding in findings:
            _print(finding)
        say("something is broken: see FAIL above" if is_broken else "nothing is broken")
    if is_broken:
        sys.exit(1)


def _node(data_dir: Path, listen: Multiaddr | None) -> list[Finding]:
    """What the running node reports about itself; if none runs, what a node would find."""
    try:
        findings = [finding_of(value) for value in call_node(data_dir, "doctor")["findings"]]
        address = facts_of_node(data_dir).get("gateway")
        reached = f"programs reach this node at {address}" if address else "programs reach this node by no TCP port"
        said = f"{socket_path(data_dir)} answers, only for this user; {reached}"
        return [ok("gateway", said), *findings]
    except NodeNotRunningError:
        try:
            lock = DataDir(data_dir).lock() if data_dir.exists() else None
        except KekahydeError as exc:
            return [
                broken("node", str(exc), "a node would fail to start for the same reason"),
                *network_findings(listen),
            ]
        if lock is not None:
            lock.close()
        elif data_dir.exists():
            step = "wait for a `run` to end or for a node to start, or stop it (find it with `ss -lxp` or `ps`)"
            return [broken("node", f"a process uses {data_dir} and has no control socket", step)]
        idle = note("node", "no node runs here now", f"kekahyde-node --data-dir {data_dir}")
        return [idle, *network_findings(listen)]
    except KekahydeError as exc:
        return [broken("node", str(exc), "see its log; stop it and start it again")]


def _print(finding: Finding) -> None:
    sign, color = SIGNS[finding.level]
    click.echo(f"{click.style(sign, fg=color)} {finding.check:<15} {finding.text}")
    if finding.next_step:
        click.echo(f"{'':<21}-> {finding.next_step}")
