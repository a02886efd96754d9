"""A cancelled pass ends at once, and every peer is told."""

from __future__ import annotations

import threading
import time

import pytest
from made_parts import make_unit
from scripted_peer import ScriptedPeer, honest, silent
from scripted_session import PATIENT, Swarm

from node.execution.chunk import ChunkState
from node.execution.interrupt import PassCancelledError
from protocol.linear.messages import Linear, Role
from protocol.message import Cancel

UNITS = [make_unit(6, 8, layer, seed=layer) for layer in range(3)]


def called_off(peer: ScriptedPeer) -> tuple[set[int], set[int]]:
    """Ids of what a peer was asked, and of what was cancelled."""
    asked = {received.id for received in peer.heard if isinstance(received.message, Linear)}
    return asked, {received.message.request_id for received in peer.heard if isinstance(received.message, Cancel)}


@pytest.mark.parametrize("num_rows", [1, 40])
@pytest.mark.parametrize("mode", ["split", "strict"])
def test_a_pass_that_waits_ends_within_milliseconds(mode: str, num_rows: int) -> None:
    """All peers are silent, and a chunk would be waited for a second: another thread ends it long before."""
    with Swarm(UNITS, mode, PATIENT) as swarm:
        for _ in range(2):
            swarm.add_lane(*[silent] * (1 if mode == "strict" else 2))
        asked_at: list[float] = []
        timer = threading.Timer(0.1, lambda: (asked_at.append(time.monotonic()), swarm.interrupt.request()))
        timer.start()
        with pytest.raises(PassCancelledError):
            swarm.step(num_rows)
        assert time.monotonic() - asked_at[0] < 0.1
        timer.join()
        assert {life[-1] for life in swarm.lives.values()} == {ChunkState.CANCELLED}
        for peer in swarm.peers:
            asked, cancelled = called_off(peer)
            if num_rows > 1 or peer.session.role is Role.SHARE:
                assert asked == cancelled
        swarm.manager.cancel_all()
        for peer in swarm.peers:
            asked, cancelled = called_off(peer)
            assert asked == cancelled, "the pads made ahead are not wanted either"


def test_afterwards_the_session_computes_as_before_with_new_pads() -> None:
    with Swarm(UNITS, "split", PATIENT) as swarm:
        swarm.add_lane(honest, honest)
        swarm.step(9)
        swarm.interrupt.request()
        with pytest.raises(PassCancelledError):
            swarm.step(9)
        swarm.manager.cancel_all()
        swarm.interrupt.clear()
        swarm.step(9)
        swarm.step(1)
        assert len(set(swarm.kernels.pads)) == len(swarm.kernels.pads), "no pad twice"
        assert swarm.manager.counts.local == 0
        assert swarm.manager.counts.merged == swarm.manager.counts.verified > 0


@pytest.mark.parametrize("num_rows", [1, 3, 9])
@pytest.mark.parametrize("mode", ["split", "strict"])
def test_pads_of_a_cancelled_pass_are_spent(mode: str, num_rows: int) -> None:
    """The shares are on their way already: the same pads must hide no rows of the next pass."""
    with Swarm(UNITS, mode, PATIENT) as swarm:

        def calls_off(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
            if peer.requests % 2 and request.rows is not None:
                swarm.interrupt.request()
            else:
                honest(peer, message_id, request)

        swarm.add_lane(*[honest] * (mode == "split"), calls_off)
        for seed in range(3):
            with pytest.raises(PassCancelledError):
                swarm.step(num_rows, seed)
            swarm.interrupt.clear()
        assert len(swarm.kernels.pads) >= 3 * num_rows, "shares were made"
        assert len(set(swarm.kernels.pads)) == len(swarm.kernels.pads), "no pad twice"
