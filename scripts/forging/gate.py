"""What a client does with a result: reads its frames, and lets it pass the gate or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import zmq

from node.execution.direct import can_settle, direct_answers
from node.execution.gate import ResultGate, UnitChecks, verify_result
from node.kernels.interface import Kernels
from node.model.unit import Unit
from node.transport.channel import Channel
from protocol.codec import decode_message, encode_message
from protocol.errors import RemoteProtocolError
from protocol.identity import Identity
from protocol.limits import MAX_DATA_HEADER_BYTES
from protocol.linear.messages import LinearResult, WorkResult
from protocol.linear.verification import UnitCheck
from scripts.forging.target import Target

DIRECT_S = 5.0
"""The answer is there already."""


class ClientGate:
    """The gate of a session.

    Args:
        recheck: reads the weights of a unit again before anybody is blamed.
    """

    def __init__(self, kernels: Kernels, units: Iterable[Unit], recheck: Callable[[Unit], None]) -> None:
        self._kernels = kernels
        self._gate = ResultGate(kernels, UnitChecks(kernels), recheck)
        for unit in units:
            self._gate.checks.of(unit)
            self._gate.expect(unit)
        self._direct = direct_answers(kernels)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        near, self._far = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        near.bind("inproc://forgeries")
        self._far.connect("inproc://forgeries")
        self._channel = Channel(Identity.from_seed(bytes(32)).peer_id, near)
        self.confirmed = 0
        """Refusals that were confirmed with weights read again and fresh vectors."""
        self.direct = 0
        """Results that the gate in C judged, too."""

    def check_of(self, unit: Unit) -> UnitCheck:
        """The secrets with which results of a unit are checked now."""
        return self._gate.checks.known(unit.ref)

    def accepts(self, target: Target, result: WorkResult, confirm: bool = False) -> bool:
        """Whether a client uses a result that came for a request.

        Args:
            confirm: do all that a client does before it bans a peer, which takes a thousand times as long: hash the
                weights again, draw fresh vectors, check the result once more.
        """
        frames = [bytes(frame) for frame in encode_message(result, target.request.id)]
        try:
            received = decode_message(frames, MAX_DATA_HEADER_BYTES).message
        except RemoteProtocolError:
            return False
        if not isinstance(received, WorkResult):
            return False
        if confirm:
            self.confirmed += 1
            return self._gate.lets_in(target.request, received)
        accepted = verify_result(target.request, received, self.check_of(target.unit), self._kernels)
        products = np.zeros((target.request.binding.num_rows, target.unit.ref.num_outputs), np.uint32)
        if self._direct is not None and can_settle(target.request, products) and isinstance(received, LinearResult):
            self._far.send_multipart(frames)
            check = self.check_of(target.unit)
            outcome = self._direct.wait(self._channel, target.request, check, products, -1, DIRECT_S)
            if (outcome.sums is not None) != accepted:
                raise RuntimeError("the two forms of the gate do not agree")
            self.direct += 1
        return accepted

    def close(self) -> None:
        self._channel.close()
        self._context.destroy(linger=0)
