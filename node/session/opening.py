"""Opens the lanes of a session's plan and gives them to its execution manager."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from functools import partial

from node.execution.manager import ExecutionManager
from node.execution.pads.guard import GuardPads
from node.execution.pads.none import NoPads
from node.execution.pads.own import OwnPads
from node.execution.pads.paired import PairedPads
from node.execution.pads.pool import PadPool
from node.execution.pads.source import PadSource
from node.execution.peer import SessionPeer
from node.node import Node
from node.session.plan import LanePlan, PadMaker
from node.transport.channel import open_channel
from node.transport.registry import ConnectedPeer
from node.trust.paired import NotPairedError
from protocol.errors import LocalProtocolError
from protocol.identity import PeerId
from protocol.limits import SEED_BYTES
from protocol.linear.messages import Role
from protocol.linear.shares import PadSeeds

CONNECT_TIMEOUT_S = 3.0
MAX_LANES = 64
"""Most lanes that a session opens, including lanes that have broken."""
LIE_BAN_S = 24 * 3600.0
"""How long a peer is banned after its result failed verification."""


class LaneOpener:
    """Opens the lanes of one session. The thread that runs the session may open new lanes while it runs."""

    def __init__(
        self,
        node: Node,
        manager: ExecutionManager,
        pad_maker: PadMaker,
        model_id: bytes,
        thin: bool = False,
        ahead: PadPool | None = None,
    ) -> None:
        """
        Args:
            thin: this device lacks weights and makes no pads.
            ahead: pads that this device has made.
        """
        self._node = node
        self._manager = manager
        self._pad_maker = pad_maker
        self._model_id = model_id
        self._opened: set[LanePlan] = set()
        self._seeds = PadSeeds(secrets.token_bytes(SEED_BYTES), model_id)
        makes = pad_maker in (PadMaker.OWN, PadMaker.PAIRED)
        self._thin = thin
        self._routes: dict[PeerId, bytes | None] = {}
        """Of peers that attached themselves: the connection over which they serve."""
        self.own_pads = OwnPads(node.kernels, self._seeds, ahead) if makes and not thin else None
        self.paired_pads: dict[PeerId, PairedPads] = {}
        """Pad sources by the device that makes the pads."""

    @property
    def _share_role(self) -> Role:
        return Role.PLAIN if self._pad_maker is PadMaker.NOBODY else Role.SHARE

    def open_lane(
        self, lane: LanePlan, peers: Mapping[PeerId, ConnectedPeer], units: frozenset[bytes] | None = None
    ) -> None:
        """Dial the peers of a lane; it takes rows of these units as soon as the connections are up."""
        pads = self._pads(lane, peers)
        self._manager.add_lane(self._join(peers[lane.share], self._share_role), pads, units, lane.stands_in)
        self._opened.add(lane)

    def begin_pass(self) -> None:
        """Draw the seeds of this pass from fresh random bytes, too, and notice who has attached itself anew."""
        self._seeds.stir(secrets.token_bytes(SEED_BYTES))
        for peer in self._manager.peers:
            if peer.channel.is_borrowed:
                route = self._node.registry.route_of(peer.peer_id)
                if self._routes.setdefault(peer.peer_id, route) != route:
                    self._routes[peer.peer_id] = route
                    self._manager.roster.lost(peer)

    def may_open(self, lane: LanePlan) -> bool:
        """Whether a lane is new, and none of its peers would hold a second role in this session."""
        roles = {peer.peer_id: peer.role for peer in self._manager.peers}
        pads_role = Role.PAD if lane.pads is None else roles.get(lane.pads, Role.PAD)
        fits = roles.get(lane.share, self._share_role) is self._share_role and pads_role is Role.PAD
        if self._pad_maker is not PadMaker.PEER and not self._thin:  # a peer is one lane, whoever makes its pads
            fits = fits and lane.share not in {opened.share for opened in self._opened}
        return fits and lane not in self._opened and len(self._opened) < MAX_LANES

    def wait_connected(self) -> list[PeerId]:
        """Wait a moment for the connections; returns the peers that could not be reached."""
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        joined = self._manager.peers
        return [peer.peer_id for peer in joined if not peer.channel.wait_connected(deadline - time.monotonic())]

    def _pads(self, lane: LanePlan, peers: Mapping[PeerId, ConnectedPeer]) -> PadSource:
        match self._pad_maker:
            case PadMaker.NOBODY:
                return self._no_pads(lane.share)
            case PadMaker.OWN:
                assert self.own_pads is not None
                return self.own_pads
            case PadMaker.PAIRED:
                assert lane.pads is not None, "if a paired device makes pads, its lane names it"
                maker = lane.pads if self._thin else next(iter(self.paired_pads), lane.pads)
                if maker not in self.paired_pads:
                    self.paired_pads[maker] = self._pads_of_paired(lane, peers)
                return self.paired_pads[maker]
            case PadMaker.PEER:
                return self._guard_pads(lane, peers)

    def _guard_pads(self, lane: LanePlan, peers: Mapping[PeerId, ConnectedPeer]) -> GuardPads:
        assert lane.pads is not None, "if a peer makes pads, its lane names it"
        return GuardPads(self._join(peers[lane.pads], Role.PAD), self._seeds, self._manager.send_pad)

    def _pads_of_paired(self, lane: LanePlan, peers: Mapping[PeerId, ConnectedPeer]) -> PairedPads:
        theirs, devices = self._guard_pads(lane, peers), self._node.trust.devices
        return PairedPads(theirs, self.own_pads, lambda: theirs.guard.peer_id in devices)

    def _no_pads(self, peer_id: PeerId) -> NoPads:
        """For plain rows: the last and decisive check of the user's consent before anything is sent."""
        devices = self._node.trust.devices
        if peer_id not in devices.readers:
            raise NotPairedError(f"{peer_id} may not read your prompts: nothing was sent to it")
        return NoPads(lambda: peer_id in devices.readers)

    def _join(self, peer: ConnectedPeer, role: Role) -> SessionPeer:
        known = next((joined for joined in self._manager.peers if joined.peer_id == peer.peer_id), None)
        if known is not None:
            if known.role is not role:
                raise LocalProtocolError(f"{peer.peer_id} would hold two roles in one session")
            return known
        node = self._node
        channel = open_channel(node.secure, node.data, peer)
        measures = node.registry.measures.of(peer.peer_id)
        joined = SessionPeer(
            peer.peer_id, role, channel, measures, self._model_id, name=self._node.name_of(peer.peer_id)
        )
        joined.on_ban = partial(self._caught, peer.peer_id)
        self._manager.add_peer(joined)
        node.tally.joined(joined)
        return joined

    def _caught(self, peer_id: PeerId) -> None:
        """A peer's result failed verification: ban the peer for a while; it never becomes a guard again."""
        self._node.guards.caught(peer_id)
        self._node.ban(peer_id, "a result of it failed verification", LIE_BAN_S)
