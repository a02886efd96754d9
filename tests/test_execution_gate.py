"""Whichever way a result comes, it passes the gate before it is used; and what the gate rests on is secret."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import pytest
from checked_swarm import FOREVER, UNITS, check, check_counts
from made_parts import KERNELS
from scripted_peer import LIES, Script, ScriptedPeer, honest, lost
from scripted_session import PATIENT, Swarm

from node.execution.gate import UnitChecks
from node.execution.peer import PeerStatus
from protocol.limits import row_bucket
from protocol.linear.field import P
from protocol.linear.messages import Linear, Role, TrustedResult
from protocol.linear.verification import UnitCheck, result_digest
from protocol.message import ErrorCode, ErrorReply

SIZES = (1, 2, 3, 4, 8, 9, 40)


def lies_at(number: int) -> Script:
    """Lies once, in the answer to its n-th request."""

    def script(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
        result = peer.compute(request)
        if peer.requests == number:
            peer.lied = True
            result = LIES["one more"](request, result, peer)
        peer.channel.answer(result, message_id)

    return script


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("num_rows", SIZES)
@pytest.mark.parametrize("mode", ["split", "strict"])
def test_a_result_of_any_size_is_checked(mode: str, num_rows: int, first: bool) -> None:
    """The first result of a peer, and one after many that were right."""
    with Swarm(UNITS, mode, FOREVER) as swarm:
        passes = 1 if first else 6
        each = len(UNITS)
        peer = swarm.add_lane(*[honest] * (mode == "split"), lies_at(each * (passes - 1) + 1))[-1]
        for index in range(passes):
            assert peer.session.status is PeerStatus.ACTIVE
            swarm.step(num_rows, seed=index)
        assert peer.lied and peer.session.status is PeerStatus.BANNED
        assert swarm.manager.counts.rejected == 1
        check(swarm)


@pytest.mark.parametrize("num_rows", SIZES)
def test_products_of_pads_are_checked(num_rows: int) -> None:
    with Swarm(UNITS, "split", FOREVER) as swarm:
        guard = swarm.add_lane(lies_at(1), honest)[0]
        swarm.step(num_rows)
        assert guard.session.status is PeerStatus.BANNED and swarm.manager.counts.rejected == 1
        check(swarm)


@pytest.mark.parametrize("mode", ["split", "strict"])
def test_the_result_of_a_retry_is_checked(mode: str) -> None:
    def fails_then_lies(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
        if peer.requests == 1:
            peer.channel.answer(ErrorReply(ErrorCode.INTERNAL, "no"), message_id)
        else:
            lies_at(2)(peer, message_id, request)

    with Swarm(UNITS, mode, FOREVER) as swarm:
        peer = swarm.add_lane(*[honest] * (mode == "split"), fails_then_lies)[-1]
        swarm.step(3)
        assert [request.rows is None for request in peer.linears] == [False, False], "the same share twice"
        assert peer.session.status is PeerStatus.BANNED and swarm.manager.counts.rejected == 1
        check(swarm)


def test_a_result_that_took_long_is_checked() -> None:
    """It comes after the usual time, and is still waited for."""
    with Swarm(UNITS, "strict", PATIENT) as swarm:
        clock = [100.0]
        swarm.manager.now = lambda: clock[0]

        def takes_long_and_lies(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
            clock[0] += 0.5
            lies_at(1)(peer, message_id, request)

        (peer,) = swarm.add_lane(takes_long_and_lies)
        swarm.step(1)
        assert peer.session.status is PeerStatus.BANNED and swarm.manager.counts.rejected == 1
        check_counts(swarm)


def test_a_share_waits_for_the_products_of_its_pads(monkeypatch: pytest.MonkeyPatch) -> None:
    with Swarm(UNITS, "split", FOREVER) as swarm:

        def holds(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
            peer.held.append((message_id, request))

        guard, _share = swarm.add_lane(holds, honest)
        pump = swarm.manager.pump

        def pump_then_answer(timeout_s: float) -> float:
            waited_s = pump(min(timeout_s, 0.01))
            while timeout_s and guard.held:
                honest(guard, *guard.held.pop(0))
            return waited_s

        monkeypatch.setattr(swarm.manager, "pump", pump_then_answer)
        for num_rows in (9, 1, 3):
            swarm.step(num_rows)
        assert swarm.manager.counts.local == 0 and swarm.manager.counts.verified == 3 * len(UNITS)


def test_rows_of_a_lane_that_broke_go_to_no_other() -> None:
    """In `split`, the guards of another lane would together hold what those of the first hold apart."""
    with Swarm(UNITS, "split", FOREVER) as swarm:
        swarm.add_lane(honest, honest)
        other = swarm.add_lane(honest, honest)[1]
        swarm.step(40)
        before = _rows_by_unit(other)
        swarm.peers[1].script = lost
        swarm.step(40, seed=2)
        after = _rows_by_unit(other)
        assert swarm.manager.counts.local > 0 and before.keys() == after.keys()
        sent = {after[unit] - before[unit] for unit in before}
        assert len(sent) == 1 and sent.pop() < row_bucket(40), (
            "as many rows of the unit after the break as of that before it"
        )
        check_counts(swarm)


def _rows_by_unit(peer: ScriptedPeer) -> dict[bytes, int]:
    rows = dict.fromkeys((request.binding.unit for request in peer.linears), 0)
    for request in peer.linears:
        rows[request.binding.unit] += request.binding.num_rows
    return rows


# --- its secrets


def test_vectors_are_drawn_anew_for_every_node_and_after_every_refusal() -> None:
    unit = UNITS[0]
    checks = [UnitChecks(KERNELS) for _ in range(2)]
    drawn = [each.of(unit) for each in checks]
    drawn += [checks[0].renew(unit), UnitCheck.of(unit.weights, KERNELS, secrets.token_bytes)]
    assert len({each.vectors.tobytes() for each in drawn}) == len(drawn)
    for each in drawn:
        assert (each.vectors < P).all() and abs(float(each.vectors.mean()) / P - 0.5) < 0.3
        assert len(np.unique(each.vectors)) > each.vectors.size - 3, "no pattern comes again"


def test_another_form_than_the_role_asks_for_is_refused() -> None:
    """A row as it is gets integers and a share gets elements, although the same numbers would pass."""

    def elements(peer: ScriptedPeer, message_id: int, request: Any) -> None:
        rows = peer.compute(request).rows
        sums = KERNELS.merge(rows, np.zeros_like(rows))
        peer.channel.answer(TrustedResult(result_digest(request.binding, sums), 1, sums), message_id)

    with Swarm(UNITS, "strict", FOREVER) as swarm:
        (peer,) = swarm.add_lane(elements)
        swarm.step(3)
        assert peer.session.role is Role.SHARE and peer.session.status is PeerStatus.BANNED
