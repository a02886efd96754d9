"""`pair` and `unpair`: let two devices of one owner trust each other, by comparing six digits on both screens."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from node.cli.narrate import say
from node.cli.options import data_dir_option, json_option
from node.errors import KekahydeError, NodeNotRunningError
from node.gateway.client.client import call_node
from node.operations.pairing import device_as_json
from node.paths import DataDir
from node.swarm.device_names import DeviceNames
from node.trust.paired import PairedDevices
from protocol.pairing.states import PairState

POLL_S = 0.2
READS = (
    "This device can read your prompt: with --privacy trusted, and with auto where that is faster, it gets the plain "
    "activations of your text."
)
_SHOWN = {state.value for state in (PairState.COMPARING, PairState.CONFIRMED, PairState.CERTIFIED, PairState.PAIRED)}
_ENDED = {PairState.ENDED.value}


class NotPairedNowError(KekahydeError):
    """An attempt to pair failed."""


@click.command()
@click.argument("peer", required=False)
@click.option("--confirm", "code", help="Confirm this code, which the other screen shows, without a question.")
@click.option(
    "--may-read-prompts/--may-not-read-prompts",
    "reads",
    default=None,
    help="Whether that device may read your prompts: with --privacy trusted, and with auto where that is faster. It "
    "may not by default.",
)
@click.option("--list", "lists", is_flag=True, help="Show paired devices and attempts.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(1), default=120.0, show_default=True, help="Seconds to wait."
)
@json_option
@data_dir_option
def pair(
    peer: str | None,
    code: str | None,
    reads: bool | None,
    lists: bool,
    timeout_s: float,
    as_json: bool,
    data_dir: Path,
) -> None:
    """Pair this device with another one of yours. A node must run on both.

    On one device give PEER (the name, PeerID or address of a connected node). On the other run `pair` without PEER,
    or with the name of the first. Both show six digits; answer yes on both only if the digits are the same. Paired
    devices make pads for --privacy strict. They cannot read your prompts unless you give --may-read-prompts.
    """
    if lists:
        _show(_listing(data_dir), as_json)
        return
    if peer is not None and reads is not None and code is None and _set_consent(data_dir, peer, reads):
        return
    deadline = time.monotonic() + timeout_s
    attempt = _begin(data_dir, peer, deadline)
    shown = _await(data_dir, attempt["peer_id"], _SHOWN | _ENDED, deadline)
    if shown["state"] in _ENDED:
        raise NotPairedNowError(f"not paired: {shown['reason']}")
    if shown["state"] == PairState.CONFIRMED.value:
        say("already confirmed here; waiting for the other device")
    elif shown["state"] != PairState.PAIRED.value:
        _decide(data_dir, shown, code, reads is True)
    ended = _await(data_dir, shown["peer_id"], {PairState.PAIRED.value} | _ENDED, deadline)
    if ended["state"] in _ENDED:
        raise NotPairedNowError(f"not paired: {ended['reason']}")
    click.echo(f"paired with {ended['peer_id']}")


@click.command()
@click.argument("peer")
@data_dir_option
def unpair(peer: str, data_dir: Path) -> None:
    """End the pairing with PEER: here at once, and there as soon as it is connected."""
    try:
        call_node(data_dir, "unpair", peer=peer)
    except NodeNotRunningError:
        with _offline(data_dir) as devices:
            devices.revoke(peer)
    click.echo(f"no longer paired with {peer}")


def _begin(data_dir: Path, peer: str | None, deadline: float) -> dict[str, Any]:
    """The attempt with `peer`, or with the first asking peer that the owner accepts."""
    if peer is not None:
        return call_node(data_dir, "pair_start", peer=peer)
    _attempts(data_dir)  # raises an error if no node runs
    say("waiting for another device: run `pair` there with the PeerID or address of this one")
    while True:
        offers = [one for one in _attempts(data_dir) if one["state"] == PairState.OFFERED.value]
        for offer in offers:
            if click.confirm(f"{offer['peer_id']} asks to be paired with this device. Accept?", err=True):
                return call_node(data_dir, "pair_start", peer=offer["peer_id"])
            call_node(data_dir, "pair_refuse", peer=offer["peer_id"])
        _sleep(deadline, "nobody asked")


def _decide(data_dir: Path, shown: dict[str, Any], code: str | None, reads: bool) -> None:
    """Show the code, ask the owner, and tell the node."""
    peer, digits = shown["peer_id"], shown["code"]
    spaced = f"{digits[:3]} {digits[3:]}"
    click.echo(f"code {spaced}")
    if reads:
        say(READS)
    if code is None:
        otherwise = f"compare the codes, then `kekahyde-node pair {peer} --confirm CODE` within two minutes"
        same = _ask(f"Do both screens show {spaced}?", otherwise)
        if not same:
            call_node(data_dir, "pair_refuse", peer=peer, mismatch=True)
            raise NotPairedNowError("not paired: you said no. If the codes differ, somebody may be in the middle")
        reads = reads and _ask("May it read your prompts?", otherwise)
    call_node(data_dir, "pair_confirm", peer=peer, code=digits if code is None else code, may_read_prompts=reads)
    say("confirmed here; waiting for the other device")


def _ask(question: str, otherwise: str) -> bool:
    """The owner's answer. If nobody can be asked, raises NotPairedNowError, which says what to do `otherwise`."""
    try:
        return click.confirm(question, err=True)
    except click.Abort as exc:
        if sys.stdin.isatty():
            raise
        raise NotPairedNowError(f"nobody answered: {otherwise}") from exc


def _set_consent(data_dir: Path, peer: str, reads: bool) -> bool:
    """Change what an already paired device may do; returns False if it is not paired."""
    listing = _listing(data_dir)
    paired = [device["peer_id"] for device in listing["devices"] if device["peer_id"].endswith(peer.lstrip("…"))]
    if len(paired) != 1:
        return False
    (peer,) = paired
    if reads:
        say(READS)
        if not _ask("May it read your prompts?", "nothing was changed"):
            raise NotPairedNowError("nothing was changed")
    try:
        call_node(data_dir, "pair_consent", peer=peer, may_read_prompts=reads)
    except NodeNotRunningError:
        with _offline(data_dir) as devices:
            devices.allow_reading(peer, reads)
    click.echo(f"{peer} {'may' if reads else 'may not'} read prompts")
    return True


def _await(data_dir: Path, peer: str, states: Collection[str], deadline: float) -> dict[str, Any]:
    """The attempt with a peer, once it is in one of these states."""
    while True:
        for attempt in _attempts(data_dir):
            if attempt["peer_id"] == peer and attempt["state"] in states:
                return attempt
        _sleep(deadline, "the other device has not answered: run `kekahyde-node pair` there")


def _attempts(data_dir: Path) -> list[dict[str, Any]]:
    return list(call_node(data_dir, "pair_list")["attempts"])


def _sleep(deadline: float, otherwise: str) -> None:
    if time.monotonic() >= deadline:
        raise NotPairedNowError(f"not paired: {otherwise}")
    time.sleep(POLL_S)


def _listing(data_dir: Path) -> dict[str, Any]:
    """The running node's list; if no node runs, what the file says."""
    try:
        return call_node(data_dir, "pair_list")
    except NodeNotRunningError:
        directory = DataDir.open(data_dir)
        devices = PairedDevices(directory.identity(), directory.path).devices()
        names = DeviceNames(directory.names)
        listed = [
            device_as_json(device) | {"name": names.of(device.peer_id), "connected": False} for device in devices
        ]
        return {"attempts": [], "devices": listed}


@contextmanager
def _offline(data_dir: Path) -> Iterator[PairedDevices]:
    """The file itself; meanwhile no node can start and write it."""
    directory = DataDir.open(data_dir)
    with directory.alone():
        yield PairedDevices(directory.identity(), directory.path)


def _show(listing: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(listing))
        return
    for device in listing["devices"]:
        reads = "may read prompts" if device["may_read_prompts"] else "makes pads only"
        day = time.strftime("%Y-%m-%d", time.localtime(device["paired_at"]))
        connected = "connected" if device["connected"] else "not connected"
        called = f"  {device['name']}" if device["name"] else ""
        click.echo(f"{device['peer_id']}  paired {day}  {reads}  {connected}{called}")
    for attempt in listing["attempts"]:
        code = f"  code {attempt['code']}" if attempt["code"] else ""
        reason = f"  {attempt['reason']}" if attempt["reason"] else ""
        click.echo(f"{attempt['peer_id']}  attempt: {attempt['state']}{code}{reason}")
    if not listing["devices"] and not listing["attempts"]:
        say("no device is paired: run `kekahyde-node pair PEER` on one device and `kekahyde-node pair` on the other")
