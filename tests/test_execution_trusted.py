"""Devices of one owner in a session: pads of a paired one, and rows as they are for one that may read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from made_parts import KERNELS, make_unit
from msgspec.structs import replace
from scripted_peer import FAULTS, Script, ScriptedPeer, error, honest, liar, lost, silent
from scripted_peer import LIES as SHARE_LIES
from scripted_session import IMPATIENT, PATIENT, Swarm

from node.execution.chunk import ChunkState
from node.execution.pads.guard import GuardPads
from node.execution.pads.none import NoPads
from node.execution.peer import PeerStatus
from protocol.errors import LocalProtocolError
from protocol.linear.field import P
from protocol.linear.messages import LinearResult, Role, TrustedLinear, TrustedResult
from protocol.linear.verification import result_digest
from protocol.message import ErrorCode

UNITS = [make_unit(20, 6), make_unit(530, 5, layer=1, kind="qkv")]
PASSES = (40, 1, 1, 3, 1)


def run(swarm: Swarm) -> None:
    for seed, num_rows in enumerate(PASSES):
        swarm.step(num_rows, seed)  # compares every result with the local kernel's
    counts = swarm.manager.counts
    assert counts.merged == counts.verified + counts.local


# --- pads of a paired device


def test_a_paired_device_makes_the_pads_and_gets_no_share() -> None:
    with Swarm(UNITS, "strict") as swarm:
        maker = swarm.add_maker(honest)
        swarm.add_lane(honest)
        swarm.add_lane(honest)
        run(swarm)
        assert all(request.seed is not None and request.rows is None for request in maker.linears)
        assert maker.linears and swarm.paired_pads is not None and swarm.paired_pads.rows_asked > 0
        assert swarm.own_pads.rows_made == 0 and swarm.manager.counts.local == 0
        check_no_pad_twice(swarm)


def check_no_pad_twice(swarm: Swarm) -> None:
    pads = swarm.kernels.pads
    assert len(set(pads)) == len(pads)


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_whatever_a_paired_device_does_the_answer_is_the_same(name: str) -> None:
    with Swarm(UNITS, "strict", IMPATIENT) as swarm:
        swarm.add_maker(FAULTS[name])
        swarm.add_lane(honest)
        run(swarm)
        check_no_pad_twice(swarm)


def test_without_the_paired_device_pads_are_made_here() -> None:
    """Its connection breaks: what was asked of it is computed here, and everything after it is padded here."""
    with Swarm(UNITS, "strict", PATIENT) as swarm:
        maker = swarm.add_maker(lost)
        swarm.add_lane(honest)
        run(swarm)
        assert maker.session.usable is False
        assert swarm.own_pads.rows_made > 0 and swarm.manager.counts.verified > 0


@pytest.mark.parametrize("lie", sorted(SHARE_LIES))
def test_a_paired_device_that_lies_is_banned_like_anybody(lie: str) -> None:
    with Swarm(UNITS, "strict") as swarm:
        maker = swarm.add_maker(liar(SHARE_LIES[lie]))
        swarm.add_lane(honest)
        run(swarm)
        assert maker.session.status is PeerStatus.BANNED and swarm.manager.counts.rejected == 1
        assert swarm.own_pads.rows_made > 0, "from then on pads are made here"


def test_a_paired_device_that_lacks_a_unit_is_not_asked_for_it_again() -> None:
    def lacks(peer: ScriptedPeer, message_id: int, request: Any) -> None:
        script = error(ErrorCode.NOT_FOUND) if request.binding.unit == UNITS[0].ref.sha256 else honest
        script(peer, message_id, request)

    with Swarm(UNITS, "strict") as swarm:
        maker = swarm.add_maker(lacks)
        swarm.add_lane(honest)
        swarm.step(1)
        run(swarm)
        asked = [request.binding.unit for request in maker.linears]
        assert asked.count(UNITS[0].ref.sha256) == 1 < asked.count(UNITS[1].ref.sha256)
        assert swarm.manager.counts.local == 1, "from then on own pads serve that unit"


def test_a_share_under_a_paired_devices_pad_may_go_to_another_lane() -> None:
    """Nobody but the user holds a pad, so a retry is as safe as with pads of this device."""
    with Swarm(UNITS, "strict", PATIENT) as swarm:
        swarm.add_maker(honest)
        swarm.add_lane(lost)
        swarm.add_lane(honest)
        run(swarm)
        assert swarm.manager.counts.verified == swarm.manager.counts.merged


def test_a_pairing_that_ends_ends_its_pads_at_once() -> None:
    with Swarm(UNITS, "strict") as swarm:
        maker = swarm.add_maker(honest)
        swarm.add_lane(honest)
        swarm.step(3)
        before = len(maker.linears)
        swarm.paired = False
        swarm.step(3)
        swarm.step(1)
        assert before > 0 and len(maker.linears) == before and swarm.own_pads.rows_made > 0


# --- rows as they are


def test_trusted_devices_get_rows_and_give_the_exact_integers() -> None:
    with Swarm(UNITS, "trusted") as swarm:
        first, second = swarm.add_lane(honest)[0], swarm.add_lane(honest)[0]
        run(swarm)
        assert swarm.manager.counts.verified == swarm.manager.counts.merged and swarm.manager.roster.plain
        for peer in (first, second):
            assert peer.plain and not peer.linears
            assert {request.binding.role for request in peer.plain} == {Role.PLAIN}
        assert not swarm.seeds.made, "no pad was made for anybody"


@pytest.mark.parametrize("name", sorted(set(FAULTS) - {"foreign id"}))
def test_whatever_a_trusted_device_does_the_answer_is_the_same(name: str) -> None:
    with Swarm(UNITS, "trusted", IMPATIENT) as swarm:
        swarm.add_lane(FAULTS[name])
        swarm.add_lane(honest)
        run(swarm)


def _lie(change: Callable[[np.ndarray], np.ndarray]) -> Script:
    def script(peer: ScriptedPeer, message_id: int, request: Any) -> None:
        sums = np.ascontiguousarray(change(peer.compute(request).sums))  # type: ignore[attr-defined]
        peer.channel.answer(TrustedResult(result_digest(request.binding, sums), 1, sums), message_id)

    return script


def _as_elements(peer: ScriptedPeer, message_id: int, request: Any) -> None:
    """The right product in the form of an answer to a share."""
    elements = peer.compute(request).elements
    peer.channel.answer(LinearResult(result_digest(request.binding, elements), 1, elements), message_id)


LIES: dict[str, Script] = {
    "one more": _lie(lambda sums: sums + np.eye(*sums.shape, dtype=np.int32)),
    "p more": _lie(lambda sums: np.where(sums < 0, sums + P, sums - P).astype(np.int32)),
    "the lowest": _lie(lambda sums: np.full_like(sums, -(2**31))),
    "zeros": _lie(np.zeros_like),
    "a row less": _lie(lambda sums: sums[1:]),
    "another form": _as_elements,
    "another digest": lambda peer, message_id, request: peer.channel.answer(
        replace(peer.compute(request), digest=bytes(32)), message_id
    ),
}


@pytest.mark.parametrize("name", sorted(LIES))
def test_a_trusted_device_is_believed_no_more_than_anybody(name: str) -> None:
    with Swarm(UNITS, "trusted") as swarm:
        (peer,) = swarm.add_lane(LIES[name])
        run(swarm)
        assert peer.session.status is PeerStatus.BANNED and swarm.manager.counts.rejected == 1
        assert swarm.manager.counts.local == swarm.manager.counts.merged


def test_a_refusal_is_not_repeated_and_computed_here() -> None:
    with Swarm(UNITS, "trusted") as swarm:
        (peer,) = swarm.add_lane(error(ErrorCode.DENIED))
        swarm.step(1)
        assert peer.requests == len(UNITS) and swarm.manager.counts.local == len(UNITS)


def test_consent_that_ends_ends_the_sending_at_once() -> None:
    with Swarm(UNITS, "trusted") as swarm:
        (peer,) = swarm.add_lane(honest)
        swarm.step(3)
        before = len(peer.plain)
        swarm.may_read = False
        swarm.step(3)
        assert before > 0 and len(peer.plain) == before
        assert swarm.manager.counts.local == len(UNITS)


def test_consent_that_ends_in_a_pass_ends_the_sending_at_once() -> None:
    with Swarm(UNITS, "trusted") as swarm:

        def is_told_no(peer: ScriptedPeer, message_id: int, request: Any) -> None:
            honest(peer, message_id, request)
            swarm.may_read = False

        (peer,) = swarm.add_lane(is_told_no)
        swarm.step(3)
        assert len(UNITS) > 1 == len(peer.plain), "the first unit of the pass and no other"
        assert swarm.manager.counts.local == len(UNITS) - 1


def test_rows_never_go_as_they_are_to_another_role() -> None:
    """Whatever a plan says, two checks stand between a plain row and a peer that may not read it."""
    with Swarm(UNITS, "trusted") as swarm:
        stranger = swarm.add_peer(Role.SHARE, silent)
        with pytest.raises(LocalProtocolError):
            swarm.manager.add_lane(stranger.session, NoPads(lambda: True))
        reader = swarm.add_peer(Role.PLAIN, silent)
        with pytest.raises(LocalProtocolError):
            swarm.manager.add_lane(reader.session, swarm.own_pads)
        (trusted,) = swarm.add_lane(honest)
        with pytest.raises(LocalProtocolError):
            swarm.manager.add_lane(stranger.session, swarm.own_pads)
        trusted.session.role = Role.SHARE
        with pytest.raises(LocalProtocolError):
            swarm.step(1)
        assert not trusted.heard and not stranger.heard and not reader.heard


def test_shares_and_pads_are_no_business_of_readers() -> None:
    with Swarm(UNITS, "split") as swarm:
        reader = swarm.add_peer(Role.PLAIN, silent)
        guard = swarm.add_peer(Role.PAD, honest)
        with pytest.raises(LocalProtocolError):
            swarm.manager.add_lane(reader.session, GuardPads(guard.session, swarm.seeds, swarm.manager.send_pad))


def test_plain_rows_are_forgotten_with_their_chunk() -> None:
    with Swarm(UNITS, "trusted") as swarm:
        swarm.add_lane(honest)
        swarm.step(3)
        assert all(record.plain is None and record.state is ChunkState.MERGED for record in swarm.records.values())


def test_a_retry_carries_the_same_rows() -> None:
    with Swarm(UNITS, "trusted", PATIENT) as swarm:
        (first,) = swarm.add_lane(lost)
        (second,) = swarm.add_lane(honest)
        swarm.step(1)
        swarm.step(1, 2)
        sent: list[TrustedLinear] = first.plain + second.plain
        contents = [request.rows.tobytes() for request in sent]
        assert len(first.plain) == 1 and contents.count(contents[0]) == 2
        assert swarm.manager.counts.verified == swarm.manager.counts.merged


def test_rows_are_quantized_the_same_there_and_here() -> None:
    """Also where a large unit enlarges the scale: the integers are the same, or honest devices would be banned."""
    unit = make_unit(3, 40_000)
    with Swarm([unit], "trusted") as swarm:
        (peer,) = swarm.add_lane(honest)
        swarm.step(1)
        rounded, _scales = KERNELS.quantize(peer.plain[0].rows, unit.max_row_norm)
        assert np.abs(rounded).max() < 2047, "the bound of this unit enlarges the scale"
        assert swarm.manager.counts.verified == 1
