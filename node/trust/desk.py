"""The pairing desk of a running node: links, clock and the file around `protocol.pairing.pairing`.

Owners act through management operations, from any thread; peers' messages come in the control plane's loop.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable

from msgspec import Struct

from node.errors import KekahydeError
from node.transport.control import ControlPlane
from node.transport.links import Link
from node.transport.registry import PeerRegistry
from node.trust.paired import PairedDevices
from protocol.codec import Received
from protocol.errors import LocalProtocolError
from protocol.identity import Identity, PeerId
from protocol.limits import NONCE_BYTES, OPERATOR_BYTES
from protocol.pairing.attempt import Attempt
from protocol.pairing.messages import (
    PAIR_NONCE_BYTES,
    PairAnswer,
    PairAsk,
    PairConfirm,
    PairingMessage,
    PairRefusal,
    PairRefuse,
    PairReveal,
    Unpair,
)
from protocol.pairing.pairing import PairAction, Paired, PairingDesk, Revoked, Send

log = logging.getLogger(__name__)

TICK_S = 0.5
_KINDS = (PairAsk, PairAnswer, PairReveal, PairConfirm, PairRefuse, Unpair)


class PairingError(KekahydeError):
    """What the owner wants cannot be done now; the text says why and what to do."""


class AttemptView(Struct, frozen=True):
    """An attempt as interfaces show it."""

    peer_id: PeerId
    state: str
    code: str
    """Six digits, empty while there is nothing to compare."""
    reason: str | None
    """Why it ended, in words."""


class TrustDesk:
    """Pairs this node with others. A resident of the control plane."""

    def __init__(
        self,
        identity: Identity,
        devices: PairedDevices,
        registry: PeerRegistry,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.devices = devices
        self._registry = registry
        self._on_change = on_change
        self._clock = clock
        self._lock = threading.RLock()
        operator = devices.operator if any(devices.operator) else secrets.token_bytes(OPERATOR_BYTES)
        self._desk = PairingDesk(identity, operator)
        self._consents: dict[PeerId, bool] = {}
        self._plane: ControlPlane | None = None

    # --- the owner

    def start_pairing(self, peer_id: PeerId) -> AttemptView:
        """Ask this peer, or answer it where it asks. Raises PairingError."""
        if all(peer.peer_id != peer_id for peer in self._registry.peers()):
            raise PairingError(f"{peer_id} is not connected: give its whole address, or see `kekahyde-node peers`")
        attempt, nonce = secrets.token_bytes(NONCE_BYTES), secrets.token_bytes(PAIR_NONCE_BYTES)
        self._own(lambda now: self._desk.start(peer_id, attempt, nonce, now))
        return self._view_of(peer_id)

    def confirm(self, peer_id: PeerId, code: str, may_read_prompts: bool) -> AttemptView:
        """The owner saw this code on both screens; `may_read_prompts` is the consent to the trusted mode."""
        ended = next((view for view in self.attempts() if view.peer_id == peer_id and view.reason), None)
        if ended is not None:
            raise PairingError(f"not paired: {ended.reason}")
        self._consents[peer_id] = may_read_prompts
        self._own(lambda now: self._desk.confirm(peer_id, code, now))
        return self._view_of(peer_id)

    def refuse(self, peer_id: PeerId, mismatch: bool = False) -> AttemptView:
        """The owner says no, or saw two codes."""
        self._own(lambda now: self._desk.refuse(peer_id, now, mismatch))
        return self._view_of(peer_id)

    def unpair(self, peer_id: str) -> None:
        """Take a pairing back, and tell the other side as soon as there is a link. Raises NotPairedError."""
        entry = self.devices.revoke(peer_id)
        self._send(entry.peer_id, Unpair(entry.pairing, False))
        self._on_change()

    def attempts(self) -> list[AttemptView]:
        """Every attempt, the newest last."""
        self._own(self._desk.tick)
        with self._lock:
            return [_view(attempt) for attempt in self._desk.attempts.values()]

    # --- a resident of the control plane

    def start(self, plane: ControlPlane) -> None:
        self._plane = plane
        for kind in _KINDS:
            plane.links.handle(kind, self._received)
        plane.links.watch(self)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._in_the_loop(self._desk.tick)

    async def leave(self) -> None:
        """Nothing to say: an attempt ends by itself."""

    # --- links

    def link_up(self, link: Link) -> None:
        """Repeat which pairings were taken back, and take over the operator of the owner's other devices."""
        for entry in self.devices.revoked():
            if entry.peer_id == link.peer_id:
                self._send(entry.peer_id, Unpair(entry.pairing, False))
        peer = next((peer for peer in self._registry.peers() if peer.peer_id == link.peer_id), None)
        try:
            if peer is not None and self.devices.adopt(peer.peer_id, peer.hello.operator):
                self._desk.operator = self.devices.operator
                self._on_change()
        except KekahydeError as exc:  # a full disk must not cost the link
            log.error("pairing: %s", exc)

    def link_down(self, peer_id: PeerId) -> None:
        """An attempt outlives a link: it has a deadline of its own."""

    def heard(self, link: Link, received: Received) -> None:
        """Only messages of pairing concern the desk, and it handles those."""

    def _received(self, link: Link, received: Received) -> None:
        message = received.message
        assert isinstance(message, _KINDS), "registered for these alone"
        self._in_the_loop(lambda now: self._desk.receive(link.peer_id, message, now))

    # --- how it is done

    def _in_the_loop(self, decide: Callable[[float], list[PairAction]]) -> None:
        """What nobody here waits for: a failure (a full disk, say) is logged and ends nothing else."""
        try:
            self._own(decide)
        except KekahydeError as exc:
            log.error("pairing: %s", exc)

    def _own(self, decide: Callable[[float], list[PairAction]]) -> None:
        """Let the desk decide, and carry out its actions."""
        with self._lock:
            try:
                actions = decide(self._clock())
            except LocalProtocolError as exc:
                raise PairingError(str(exc)) from exc
            for action in actions:
                self._act(action)

    def _act(self, action: PairAction) -> None:
        match action:
            case Send(peer_id, message):
                self._send(peer_id, message)
            case Paired(peer_id, certificate, operator):
                reads = self._consents.pop(peer_id, False)
                self.devices.add(peer_id, certificate, operator, time.time(), reads)
                log.info("paired with %s", peer_id)
                self._on_change()
            case Revoked(peer_id, pairing):
                if self.devices.forget(peer_id, pairing):
                    log.warning("%s has taken its pairing with this device back", peer_id)
                    self._on_change()

    def _send(self, peer_id: PeerId, message: PairingMessage) -> None:
        if self._plane is not None:
            self._plane.send(peer_id, message)

    def _view_of(self, peer_id: PeerId) -> AttemptView:
        with self._lock:
            return _view(self._desk.attempts[peer_id])


_REASONS = {
    PairRefusal.REFUSED: "refused at",
    PairRefusal.MISMATCH: "another code was seen at",
    PairRefusal.EXPIRED: "nobody acted in time at",
    PairRefusal.BROKEN: "a message did not check at",
    PairRefusal.UNKNOWN: "no such attempt at",
    PairRefusal.LOCKED: "too many attempts failed of late at",
    PairRefusal.BUSY: "too many others wait at",
}


def _view(attempt: Attempt) -> AttemptView:
    reason = attempt.reason
    if reason is None:
        return AttemptView(attempt.peer_id, attempt.state.value, attempt.code, None)
    who = "the other device" if attempt.ended_there else "this device"
    return AttemptView(attempt.peer_id, attempt.state.value, attempt.code, f"{_REASONS[reason]} {who}")
