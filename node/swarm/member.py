"""Runs the membership protocol: turns its deadlines into timers, and its actions into frames, files and dials.

It runs in the control plane's loop; `peers`, `announce` and the like may be called from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import assert_never

from node.errors import KekahydeError
from node.swarm.memory import SwarmMemory
from node.transport.control import ControlPlane
from node.transport.links import Link, Links
from protocol.codec import Received
from protocol.identity import Identity, PeerId
from protocol.link.messages import Pong
from protocol.membership.actions import Action, Changed, Doubled, Forgotten, Forked, Issued, Misbehaved, Send
from protocol.membership.member import Membership
from protocol.membership.messages import Gossip, PingReq, PingResult, Sync, SyncOk
from protocol.membership.peer_table import Entry
from protocol.membership.records import PeerFacts, PeerRecord, next_seq
from protocol.message import Ping

log = logging.getLogger(__name__)

ANCHOR_INTERVAL_S = 30.0
ANCHOR_DELAY_S = 1.0
"""The last records are written this long after a change, and sometimes to store the order of the last contacts."""
FAREWELL_S = 0.3
"""Time in which the news that this node leaves is pushed a second time."""
MAX_PINGS = 4096
PARDON_S = 60.0
MAX_FAULTY = 1024
MAX_FAULTS = 10
"""A peer that breaks the rules so often within PARDON_S seconds is reported."""

OnChange = Callable[[Changed | Forgotten], None]


def unix_ms() -> int:
    return int(time.time() * 1000)


class Member:
    """This node as a member of its swarm."""

    def __init__(
        self,
        identity: Identity,
        facts: Callable[[], PeerFacts],
        memory: SwarmMemory,
        links: Links,
        on_fault: Callable[[PeerId, str], None],
    ) -> None:
        """`on_fault` is called for a peer that keeps breaking the rules of membership. Raises ConfigError."""
        self._identity = identity
        self._facts = facts
        self._memory = memory
        self._links = links
        self._on_fault = on_fault
        self._watchers: list[OnChange] = []
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._anchors_at = time.monotonic() + ANCHOR_INTERVAL_S
        self._wakes_at = 0.0
        self._pinged: dict[int, tuple[PeerId, float]] = {}
        self._faults: dict[PeerId, list[float]] = {}
        self._membership: Membership | None = None
        self.doubled: tuple[float, tuple[str, ...]] | None = None
        """When this node last got a record that another device signed with its identity, and the addresses in it."""
        self._stored_seq = memory.seq()
        links.watch(self)
        for kind in (Gossip, Sync, SyncOk, PingReq, PingResult):
            links.handle(kind, self._received)

    # --- from any thread

    def peers(self) -> list[Entry]:
        """All peers of the table."""
        with self._lock:
            return [] if self._membership is None else self._membership.peers()

    def peer(self, peer_id: PeerId) -> Entry | None:
        with self._lock:
            return None if self._membership is None else self._membership.peer(peer_id)

    @property
    def record(self) -> PeerRecord | None:
        """This node's own record; None before the start."""
        with self._lock:
            return None if self._membership is None else self._membership.record

    @property
    def health(self) -> int:
        """This node's own health score; 0 is healthy."""
        with self._lock:
            return 0 if self._membership is None else self._membership.health

    def watch(self, watcher: OnChange) -> None:
        """Call `watcher`, in the control plane's loop, after every change of the table."""
        self._watchers.append(watcher)

    def announce(self) -> None:
        """This node's facts may have changed: check, and tell the swarm."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed because the node stops
                self._loop.call_soon_threadsafe(self._announce)

    # --- from the control plane's loop

    def start(self, _plane: ControlPlane) -> None:
        """Start; the sequence number is on the disk when this returns."""
        self._loop = asyncio.get_running_loop()
        seq = next_seq(self._stored_seq, unix_ms())
        self._memory.keep_seq(seq)
        with self._lock:
            self._membership = Membership(self._identity, self._facts(), seq, time.monotonic(), random.SystemRandom())
            envelopes = [record.envelope for record in self._memory.anchors()]
            self._do(self._membership.load(time.monotonic(), envelopes))

    async def run(self) -> None:
        """Handle deadlines for ever."""
        while True:
            self._wake.clear()
            self._wakes_at = self._due_at
            pause_s = self._wakes_at - time.monotonic()
            with contextlib.suppress(TimeoutError):  # not wait_for: in Python 3.11 it may lose a cancellation
                async with asyncio.timeout(max(0.0, pause_s)):
                    await self._wake.wait()
            with self._lock:
                if self._running.next_tick() <= time.monotonic():
                    self._do(self._running.tick(time.monotonic()))
            if time.monotonic() >= self._anchors_at:
                self._keep_anchors()
                self._anchors_at = time.monotonic() + ANCHOR_INTERVAL_S

    async def leave(self) -> None:
        """Say goodbye to the swarm."""
        self._keep_anchors()
        with self._lock:
            self._do(self._running.leave(time.monotonic(), unix_ms()))
        until = time.monotonic() + FAREWELL_S
        while self._links and (left_s := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left_s, max(0.01, self._running.next_tick() - time.monotonic())))
            with self._lock:
                self._do(self._running.tick(time.monotonic()))

    # --- as a watcher of links

    def link_up(self, link: Link) -> None:
        with self._lock:
            self._do(self._running.link_up(time.monotonic(), link.peer_id, link.dialled))

    def link_down(self, peer_id: PeerId) -> None:
        with self._lock:
            self._do(self._running.link_down(time.monotonic(), peer_id))

    def heard(self, link: Link, received: Received) -> None:
        if isinstance(received.message, Pong):
            self._measure(link.peer_id, received.id)
        with self._lock:
            self._do(self._running.heard(time.monotonic(), link.peer_id))

    # --- inside

    @property
    def _running(self) -> Membership:
        assert self._membership is not None, "started"
        return self._membership

    @property
    def _due_at(self) -> float:
        """When the next deadline is."""
        return min(self._running.next_tick(), self._anchors_at)

    def _received(self, link: Link, received: Received) -> None:
        message = received.message
        assert isinstance(message, Gossip | Sync | SyncOk | PingReq | PingResult)
        with self._lock:
            self._do(self._running.receive(time.monotonic(), link.peer_id, message))

    def _announce(self) -> None:
        with self._lock:
            self._do(self._running.update(time.monotonic(), unix_ms(), self._facts()))

    def _keep_anchors(self) -> None:
        with self._lock:
            envelopes = self._running.anchors()
        try:
            if envelopes:  # a node that has lost all peers keeps the last records it knew
                self._memory.keep_anchors(envelopes)
        except KekahydeError as exc:
            log.warning("%s", exc)

    def _keep_seq(self, seq: int) -> None:
        """Write the number to the disk before the record is sent. A full disk does not end links: after a restart the
        clock gives a higher number."""
        try:
            self._memory.keep_seq(seq)
        except KekahydeError as exc:
            log.error("%s", exc)

    def _do(self, actions: Sequence[Action]) -> None:
        """Do what the membership protocol asks for, in its order."""
        for action in actions:
            match action:
                case Send(peer_id, message):
                    self._send(peer_id, message)
                case Issued(record):
                    self._keep_seq(record.seq)
                case Changed() | Forgotten():
                    self._tell(action)
                case Forked(peer_id):
                    log.warning(
                        "peer %s signed two records with one number: two devices have its identity, or it is broken "
                        "or dishonest",
                        peer_id,
                    )
                    self._on_fault(peer_id, "signed two records with one number")
                case Doubled(record):
                    self._met_double(record)
                case Misbehaved(peer_id, reason):
                    self._blame(peer_id, reason)
                case _ as unreachable:
                    assert_never(unreachable)
        if self._due_at < self._wakes_at:  # most frames change no deadline, so the task can sleep on
            self._wake.set()

    def _met_double(self, record: PeerRecord) -> None:
        """Report another device with this node's identity. A goodbye is ignored: it comes from a device that has
        ended, or from an earlier run of this node."""
        if record.left:
            self.doubled = None
            return
        addresses = record.facts.addrs or ("none",)
        if self.doubled is None or self.doubled[1] != addresses:
            log.error(
                "another device has the identity of this node (its addresses: %s): a data directory was copied; stop "
                "one of the two, and start it with a new --data-dir, which gives it a new identity",
                ", ".join(addresses),
            )
        self.doubled = (time.monotonic(), addresses)

    def _send(self, peer_id: PeerId, message: Ping | Gossip | Sync | SyncOk | PingReq | PingResult) -> None:
        number = self._links.send(peer_id, message)
        if isinstance(message, Ping) and number is not None:
            self._pinged[number] = (peer_id, time.monotonic())
            while len(self._pinged) > MAX_PINGS:
                del self._pinged[next(iter(self._pinged))]

    def _measure(self, peer_id: PeerId, number: int) -> None:
        pinged, sent_at = self._pinged.pop(number, (None, 0.0))
        if pinged == peer_id:
            self._links.measured(peer_id, time.monotonic() - sent_at)

    def _tell(self, change: Changed | Forgotten) -> None:
        self._anchors_at = min(self._anchors_at, time.monotonic() + ANCHOR_DELAY_S)
        if isinstance(change, Changed) and change.state is not change.previous:
            log.info("peer %s is %s", change.peer, change.state.name.lower())
        for watcher in self._watchers:
            watcher(change)

    def _blame(self, peer_id: PeerId, reason: str) -> None:
        now = time.monotonic()
        faults = [at for at in self._faults.get(peer_id, []) if now - at < PARDON_S] + [now]
        self._faults[peer_id] = faults
        if len(self._faults) > MAX_FAULTY:
            del self._faults[next(iter(self._faults))]
        if len(faults) == 1 or len(faults) >= MAX_FAULTS:
            log.warning("peer %s broke the rules: %s", peer_id, reason)
        if len(faults) >= MAX_FAULTS:
            del self._faults[peer_id]
            self._on_fault(peer_id, reason)
