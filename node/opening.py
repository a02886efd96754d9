"""A plan becomes channels: lanes of a session are opened and handed to its execution manager."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping

from node.execution.manager import ExecutionManager
from node.execution.pads import GuardPads, OwnPads, PadSource
from node.execution.peer import SessionPeer
from node.formation import LanePlan, PadMaker, SessionPlan
from node.node import Node
from node.transport.channel import open_channel
from node.transport.registry import ConnectedPeer
from protocol.identity import PeerId
from protocol.limits import SEED_BYTES
from protocol.messages import Role
from protocol.shares import PadSeeds

CONNECT_TIMEOUT_S = 3.0


class LaneOpener:
    """Opens the lanes of one session; new lanes may be opened while it runs, by the thread that runs it."""

    def __init__(self, node: Node, manager: ExecutionManager, pad_maker: PadMaker, model_id: bytes) -> None:
        self._node = node
        self._manager = manager
        self._pad_maker = pad_maker
        self._model_id = model_id
        self._seeds = PadSeeds(secrets.token_bytes(SEED_BYTES), model_id)
        self.own_pads = OwnPads(node.kernels, self._seeds) if pad_maker is PadMaker.OWN else None

    def open_all(self, plan: SessionPlan, peers: Mapping[PeerId, ConnectedPeer]) -> list[PeerId]:
        """Open every lane of a plan and wait a moment for the connections; who could not be reached."""
        for lane in plan.lanes:
            self.open_lane(lane, peers)
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        joined = self._manager.peers
        return [peer.peer_id for peer in joined if not peer.channel.wait_connected(deadline - time.monotonic())]

    def open_lane(self, lane: LanePlan, peers: Mapping[PeerId, ConnectedPeer]) -> None:
        """Dial the guards of a lane; it takes rows as soon as both connections stand."""
        pads = self._pads(lane, peers)
        self._manager.add_lane(self._join(peers[lane.share], Role.SHARE), pads)

    def _pads(self, lane: LanePlan, peers: Mapping[PeerId, ConnectedPeer]) -> PadSource:
        if self.own_pads is not None:
            return self.own_pads
        assert lane.pads is not None, "where pads are not our own, a lane names who makes them"
        return GuardPads(self._join(peers[lane.pads], Role.PAD), self._seeds, self._manager.send_pad)

    def _join(self, peer: ConnectedPeer, role: Role) -> SessionPeer:
        node = self._node
        channel = open_channel(node.secure, node.registry, node.data, peer)
        measures = node.registry.measures.of(peer.peer_id)
        joined = SessionPeer(peer.peer_id, role, channel, measures, self._model_id)
        self._manager.add_peer(joined)
        return joined
