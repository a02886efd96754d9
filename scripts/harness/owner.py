"""What the owner of several devices does at their screens: pairs two of them, and says who may read prompts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

from node.gateway.client.client import call_node

WAIT_S = 30.0
TURN_S = 0.05


class Running(Protocol):
    """A node that runs."""

    peer_id: str

    @property
    def data_dir(self) -> Path: ...

    @property
    def address(self) -> str: ...


def pair(client: Running, device: Running, may_read: bool = True) -> None:
    """Pair two running nodes of one swarm; `may_read`: the device may read the client's prompts."""
    call_node(client.data_dir, "pair_start", peer=device.address or device.peer_id)
    _until_asked(device, client)
    call_node(device.data_dir, "pair_start", peer=client.peer_id)
    for here, there, reads in ((client, device, may_read), (device, client, False)):
        code = _until_asked(here, there, with_code=True)
        call_node(here.data_dir, "pair_confirm", peer=there.peer_id, code=code, may_read_prompts=reads)
    deadline = time.monotonic() + WAIT_S
    while not all(_is_paired(here, there) for here, there in ((client, device), (device, client))):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{client.data_dir.name} and {device.data_dir.name} were not paired in {WAIT_S:g} s")
        time.sleep(TURN_S)


def _until_asked(here: Running, there: Running, with_code: bool = False) -> str:
    """Wait until an attempt with that device is known here; its code, if it is wanted."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        for attempt in call_node(here.data_dir, "pair_list")["attempts"]:
            if attempt["peer_id"] == there.peer_id and (attempt["code"] or not with_code):
                return str(attempt["code"] or "")
        time.sleep(TURN_S)
    raise TimeoutError(f"{here.data_dir.name} has no code for {there.data_dir.name} after {WAIT_S:g} s")


def _is_paired(here: Running, there: Running) -> bool:
    return any(device["peer_id"] == there.peer_id for device in call_node(here.data_dir, "pair_list")["devices"])
