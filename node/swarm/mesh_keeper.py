"""Dials the peers that the mesh says are due. It runs in the control plane's loop."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from functools import partial

from node.swarm.member import Member
from node.swarm.memory import addresses_of
from node.swarm.mesh import Candidate, Mesh
from node.transport.control import ControlPlane
from protocol.identity import PeerId
from protocol.membership.actions import Changed, Forgotten
from protocol.membership.messages import State

INTERVAL_S = 0.5


class MeshKeeper:
    """Keeps a link to every member that can be dialled."""

    def __init__(self, me: PeerId, member: Member, refusal: Callable[[PeerId], str | None]) -> None:
        self._member = member
        self._refusal = refusal
        self._mesh = Mesh(me, random.SystemRandom())
        self._wake = asyncio.Event()
        self._plane: ControlPlane | None = None

    def start(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._member.watch(self._changed)

    async def run(self) -> None:
        """Dial peers that are due, at regular intervals and whenever there is news."""
        self._dial_due(eager=True)
        while True:
            self._dial_due()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):  # not wait_for: in Python 3.11 it may lose a cancellation
                async with asyncio.timeout(INTERVAL_S):
                    await self._wake.wait()
            await asyncio.sleep(0)  # news comes in bursts: check once for all of it

    async def leave(self) -> None:
        """Does nothing."""

    def _changed(self, change: Changed | Forgotten) -> None:
        if isinstance(change, Changed) and change.state is State.ALIVE:
            self._mesh.hurry(time.monotonic(), change.peer)
            self._wake.set()

    def _dial_due(self, eager: bool = False) -> None:
        assert self._plane is not None, "started"
        wanted = {
            entry.record.peer_id: entry
            for entry in self._member.peers()
            if entry.state is not State.LEFT
            and entry.record.facts.addrs
            and self._refusal(entry.record.peer_id) is None
        }
        candidates = [Candidate(peer_id, entry.state <= State.SUSPECT) for peer_id, entry in wanted.items()]
        for peer_id in self._mesh.due(time.monotonic(), candidates, self._plane.links.peers, eager):
            addresses = addresses_of(wanted[peer_id].record)
            self._plane.dials.once(addresses, partial(self._ended, peer_id))

    def _ended(self, peer_id: PeerId, was_up: bool) -> None:
        entry = self._member.peer(peer_id)
        alive = entry is not None and entry.state <= State.SUSPECT
        self._mesh.ended(time.monotonic(), peer_id, was_up, alive)
