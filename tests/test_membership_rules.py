"""Single rules of membership, with one node and scripted peers."""

import math
import random
from typing import Any

import pytest

from protocol import cbor
from protocol.identity import PeerId
from protocol.limits import MAX_CONTROL_FRAME_BYTES
from protocol.membership.actions import Action, Changed, Doubled, Forgotten, Forked, Issued, Misbehaved, Send
from protocol.membership.config import MembershipConfig
from protocol.membership.gossip import transmissions
from protocol.membership.member import Membership
from protocol.membership.messages import (
    Claim,
    Gossip,
    PingReq,
    PingResult,
    State,
    Sync,
    SyncOk,
)
from protocol.membership.records import PeerFacts, PeerRecord, claimed_key, sign_record
from protocol.membership.suspicion import Suspicion, suspicion_bounds
from protocol.membership.timers import Timer, Timers
from protocol.message import Ping
from scripts.membership_lab.simulator import identity_of

CONFIG = MembershipConfig()
KEYS = [identity_of(number).public_key for number in range(20)]
IDS = [identity_of(number).peer_id for number in range(20)]


def record_of(number: int, seq: int = 1, left: bool = False, agent: str = "") -> PeerRecord:
    return sign_record(identity_of(number), PeerFacts((f"/ip4/10.0.0.{number}/tcp/1",), agent), seq, left)


def node(num_peers: int = 4, config: MembershipConfig = CONFIG) -> Membership:
    """Node 0, which knows peers 1 to `num_peers`."""
    facts = PeerFacts(("/ip4/10.0.0.0/tcp/1",))
    member = Membership(identity_of(0), facts, 1, 0.0, random.Random(1), config)
    member.load(0.0, [record_of(number).envelope for number in range(1, num_peers + 1)])
    return member


def run(member: Membership, until: float) -> list[Action]:
    done: list[Action] = []
    while (at := member.next_tick()) <= until:
        done += member.tick(at)
    return done


def sent(actions: list[Action], kind: type) -> list[tuple[PeerId, Any]]:
    return [(a.peer, a.message) for a in actions if isinstance(a, Send) and isinstance(a.message, kind)]


def state(member: Membership, number: int) -> State | None:
    entry = member.peer(IDS[number])
    return None if entry is None else entry.state


def accuse(subject: int, accuser: int, seq: int = 1, how: State = State.SUSPECT) -> Gossip:
    return Gossip(claims=(Claim(KEYS[subject], seq, how, KEYS[accuser]),))


def test_a_silent_peer_is_pinged_then_asked_for_then_suspected_then_dead() -> None:
    member = node(4)
    actions = run(member, 20.0)
    order = [type(a.message) for a in actions if isinstance(a, Send) and isinstance(a.message, Ping | PingReq)]
    assert order[:2] == [Ping, Ping] and order.count(PingReq) >= 3
    states = [a.state for a in actions if isinstance(a, Changed) and a.peer == IDS[1]]
    assert states[:1] == [State.SUSPECT]
    assert [a.state for a in run(member, 120.0) if isinstance(a, Changed)].count(State.DEAD) == 4
    assert member.health == CONFIG.max_health, "who hears nobody doubts himself most"


def test_remote_death_is_suspicion_and_hearing_ends_it() -> None:
    member = node()
    member.receive(0.1, IDS[2], accuse(1, 3, how=State.DEAD))
    assert state(member, 1) is State.SUSPECT
    actions = member.heard(0.2, IDS[1])
    assert state(member, 1) is State.ALIVE
    assert sent(actions, Gossip)[0] == (IDS[1], Gossip(claims=(Claim(KEYS[1], 1, State.SUSPECT, KEYS[0]),)))


def test_fresh_traffic_beats_hearsay() -> None:
    member = node()
    member.heard(0.1, IDS[1])
    told = member.receive(0.2, IDS[2], accuse(1, 2, how=State.DEAD))
    assert state(member, 1) is State.ALIVE
    assert sent(told, Gossip)[0][0] == IDS[1], "the accused hears of it"
    assert sent(run(member, 1.0), Ping)[0][0] == IDS[1], "and is probed next"


@pytest.mark.parametrize(
    "gossip", [accuse(1, 3, seq=2), accuse(1, 3, seq=0), accuse(9, 3), accuse(1, 1), accuse(1, 0)]
)
def test_claims_that_count_for_nothing(gossip: Gossip) -> None:
    member = node()
    member.receive(0.1, IDS[2], gossip)
    assert state(member, 1) is State.ALIVE


def test_the_accused_refutes_with_a_higher_seq_and_not_more_often_than_needed() -> None:
    member = node()
    for _ in range(5):
        member.receive(0.01, IDS[1], accuse(0, 1))
    issued = [a.record.seq for a in run(member, 0.7) if isinstance(a, Issued)]
    assert issued == [2]
    member.receive(0.7, IDS[1], accuse(0, 1, seq=1))
    member.receive(0.7, IDS[1], accuse(0, 1, seq=1 << 60))
    assert not [a for a in run(member, 3.0) if isinstance(a, Issued)]


def test_a_newer_record_clears_a_suspect() -> None:
    member = node()
    member.receive(0.1, IDS[2], accuse(1, 3))
    actions = member.receive(0.2, IDS[2], Gossip((record_of(1, seq=2).envelope,)))
    assert state(member, 1) is State.ALIVE
    assert [a.previous for a in actions if isinstance(a, Changed)] == [State.SUSPECT]
    actions = run(member, 0.6)
    assert not [1 for _, message in sent(actions, Gossip) if message.claims], "the old claim is no longer passed on"


def test_leaving_is_in_a_signed_record_only_and_final_below_a_higher_seq() -> None:
    member = node()
    member.receive(0.1, IDS[2], Gossip((record_of(1, seq=2, left=True).envelope,)))
    for late in (Gossip((record_of(1).envelope,)), accuse(1, 3, seq=2)):
        member.receive(0.2, IDS[2], late)
        assert state(member, 1) is State.LEFT
    member.heard(0.3, IDS[1])
    assert state(member, 1) is State.LEFT
    member.receive(0.4, IDS[2], Gossip((record_of(1, seq=3).envelope,)))
    assert state(member, 1) is State.ALIVE


def test_who_leaves_says_so_once_and_is_silent() -> None:
    member = node()
    actions = member.leave(1.0, 99)
    assert {peer for peer, _ in sent(actions, Gossip)} == set(IDS[1:5])
    assert member.record.left and member.record.seq == 99
    assert not sent(run(member, 60.0), Ping)
    assert member.receive(61.0, IDS[1], accuse(0, 1, seq=99)) == []


def test_bad_records_are_reported_and_the_good_ones_beside_them_kept() -> None:
    member = node()
    forged = bytearray(record_of(5).envelope)
    forged[-1] ^= 1
    actions = member.receive(0.1, IDS[1], Gossip((bytes(forged), b"", record_of(6).envelope)))
    assert len([a for a in actions if isinstance(a, Misbehaved) and a.peer == IDS[1]]) == 2
    assert state(member, 5) is None and state(member, 6) is State.ALIVE


@pytest.mark.parametrize("later", [1, 5])
def test_an_equivocator_is_flagged_by_both_records_together(later: int) -> None:
    """Also by a node that holds a newer record already."""
    member = node()
    member.receive(0.1, IDS[1], Gossip((record_of(3, seq=later).envelope,)))
    pair = Gossip((record_of(3, 1, agent="a").envelope, record_of(3, 1, agent="b").envelope))
    actions = member.receive(0.2, IDS[2], pair) + member.receive(0.3, IDS[2], pair)
    assert [a.peer for a in actions if isinstance(a, Forked)] == [IDS[3]]
    entry = member.peer(IDS[3])
    assert entry is not None and entry.equivocated
    passed_on = [[claimed_key(r) for r in message.records] for _, message in sent(run(member, 1.0), Gossip)]
    assert any(keys.count(KEYS[3]) >= 2 for keys in passed_on)


def test_an_earlier_life_is_outdone() -> None:
    member = node()
    actions = member.receive(0.1, IDS[1], Gossip((record_of(0, seq=50).envelope,)))
    assert [a.record.seq for a in actions if isinstance(a, Issued)] == [51]
    assert [a.record.seq for a in actions if isinstance(a, Doubled)] == [50], "it may be that of another device"
    echo = member.record.envelope
    actions = member.receive(0.2, IDS[1], Gossip((echo, record_of(0, seq=49).envelope)))
    assert not [a for a in actions if isinstance(a, Issued | Doubled)], "its own, or one from before"


def test_a_sender_introduces_a_bounded_number_a_minute() -> None:
    member = node(2, MembershipConfig(new_records_per_minute=2))
    member.receive(0.1, IDS[1], Gossip(tuple(record_of(number).envelope for number in (5, 6, 7))))
    assert state(member, 6) is State.ALIVE and state(member, 7) is None
    member.receive(0.1, IDS[8], Gossip((record_of(8).envelope,)))
    assert state(member, 8) is State.ALIVE, "oneself is not counted"
    run(member, 61.0)
    member.receive(61.0, IDS[1], Gossip((record_of(7).envelope,)))
    assert state(member, 7) is State.ALIVE


def test_a_helper_pings_and_reports() -> None:
    member = node()
    ask = PingReq(KEYS[2], 7)
    assert sent(member.receive(0.0, IDS[1], ask), Ping) == [(IDS[2], Ping())]
    assert sent(member.heard(0.1, IDS[2]), PingResult) == [(IDS[1], PingResult(KEYS[2], 7, True))]
    member.receive(0.2, IDS[1], ask)
    assert (IDS[1], PingResult(KEYS[2], 7, False)) in sent(run(member, 0.7), PingResult)
    unknown = member.receive(1.0, IDS[1], PingReq(KEYS[15], 8))
    assert sent(unknown, PingResult) == [(IDS[1], PingResult(KEYS[15], 8, False))]
    assert member.receive(1.0, IDS[1], PingReq(KEYS[1], 9)) == []
    flood = [member.receive(1.0, IDS[1], PingReq(KEYS[2], number)) for number in range(100)]
    assert sum(bool(sent(actions, PingResult)) for actions in flood) == 100 - 64


@pytest.mark.parametrize("reached", [True, False])
def test_an_indirect_answer_saves_the_target(reached: bool) -> None:
    member = node()
    while not (asked := sent(member.tick(now := member.next_tick()), PingReq)):
        pass
    helper, request = asked[0]
    target = IDS[KEYS.index(request.target)]
    replies = [(IDS[9], 0, True), (helper, 1, True), (helper, 0, False), (helper, 0, reached)]
    for sender, more, result in replies:
        member.receive(now + 0.01, sender, PingResult(request.target, request.number + more, result))
    states = [a.state for a in run(member, now + 0.6) if isinstance(a, Changed) and a.peer == target]
    assert states == ([] if reached else [State.SUSPECT])


def test_a_pause_is_ones_own_fault() -> None:
    member = node()
    run(member, 1.2)
    actions = member.tick(60.0)
    assert not [a for a in actions if isinstance(a, Changed)], "no deadline counts before what has arrived is read"
    assert member.health == CONFIG.max_health
    assert 60.0 < member.next_tick() <= 60.0 + CONFIG.lag_grace_s + 0.01


def test_a_broken_link_is_probed_at_once() -> None:
    member = node(9)
    member.link_up(0.0, IDS[7], dialled=False)
    member.link_down(0.001, IDS[7])
    assert sent(member.tick(0.001), Ping) == [(IDS[7], Ping())]


def test_who_has_no_address_is_reached_over_its_link_only() -> None:
    member = Membership(identity_of(0), PeerFacts(), 1, 0.0, random.Random(1))
    member.receive(0.0, IDS[2], Gossip((sign_record(identity_of(1), PeerFacts(), 1).envelope,)))
    assert not sent(run(member, 30.0), Ping)
    assert sent(member.link_up(30.0, IDS[1], dialled=True), Sync)
    assert sent(run(member, 33.0), Ping)


def pump(first: Membership, second: Membership, actions: list[Action], now: float) -> list[Any]:
    """Carry an exchange between two nodes to its end."""
    members = {first.record.peer_id: first, second.record.peer_id: second}
    waiting = [(first, action) for action in actions]
    seen: list[Any] = []
    while waiting:
        origin, action = waiting.pop(0)
        if isinstance(action, Send) and action.peer in members and not isinstance(action.message, Ping):
            seen.append(action.message)
            assert len(cbor.encode(action.message.to_body())) < MAX_CONTROL_FRAME_BYTES
            receiver = members[action.peer]
            waiting += [(receiver, more) for more in receiver.receive(now, origin.record.peer_id, action.message)]
    return seen


def pair() -> tuple[Membership, Membership]:
    first, second = node(3), Membership(identity_of(5), PeerFacts(("/ip4/10.0.0.5/tcp/1",)), 1, 0.0, random.Random(2))
    second.load(0.0, [record_of(2, seq=4).envelope, record_of(3, agent="other").envelope, record_of(7).envelope])
    return first, second


def test_two_tables_become_equal_and_then_exchange_a_hash_only() -> None:
    first, second = pair()
    pump(first, second, first.link_up(1.0, IDS[5], dialled=True), 1.0)
    assert first.table_hash == second.table_hash
    entry = first.peer(IDS[3])
    assert entry is not None and entry.equivocated
    again = pump(first, second, first.link_up(2.0, IDS[5], dialled=True), 2.0)
    assert [type(message) for message in again] == [Sync, SyncOk] and again[1] == SyncOk()


def test_the_dead_are_told_to_whom_takes_them_for_alive_but_not_taught() -> None:
    first, second = node(2), Membership(identity_of(5), PeerFacts(("/ip4/10.0.0.5/tcp/1",)), 1, 0.0, random.Random(2))
    second.load(0.0, [record_of(1).envelope])
    first.receive(0.1, IDS[2], Gossip((record_of(3, left=True).envelope, record_of(5).envelope)))
    run(first, 30.0)  # all fall silent
    first.heard(100.0, IDS[5])
    run(first, 130.0)
    assert state(first, 1) is State.DEAD
    second.tick(200.0)
    pump(second, first, second.link_up(200.6, IDS[0], dialled=True), 200.6)
    assert state(second, 1) is State.SUSPECT, "remote death is suspicion"
    assert state(second, 3) is None, "a tombstone is not spread to those who do not know the peer"


def test_a_digest_is_not_sent_to_one_peer_all_the_time() -> None:
    first, second = pair()
    asks = [sent(first.receive(1.0, IDS[5], Sync(bytes(32), second.record.envelope)), SyncOk) for _ in range(5)]
    assert sum(any(message.digest for _, message in answers) for answers in asks) == 1


def test_tombstones_end_with_a_word() -> None:
    member = node(1, MembershipConfig(tombstone_s=50.0))
    member.receive(0.0, IDS[2], Gossip((record_of(1, seq=2, left=True).envelope,)))
    assert [a.peer for a in run(member, 121.0) if isinstance(a, Forgotten)] == [IDS[1]]


def test_new_facts_get_a_new_record_and_the_same_facts_none() -> None:
    member = node()
    assert member.update(1.0, 500, member.record.facts) == []
    actions = member.update(1.0, 500, PeerFacts(("/ip4/10.0.0.9/tcp/1",)))
    assert [a.record.seq for a in actions if isinstance(a, Issued)] == [500]
    assert len(sent(run(member, 1.0), Gossip)) == 3, "pushed at once"


def test_anchors_bring_a_table_back() -> None:
    member = node(3)
    member.heard(0.5, IDS[3])
    assert member.anchors()[0] == record_of(3).envelope
    again = Membership(identity_of(0), PeerFacts(), 2, 0.0, random.Random(1))
    again.load(0.0, [*member.anchors(), b"damaged"])
    assert len(again.peers()) == 3


def test_suspicion_grows_with_the_swarm_and_shrinks_with_accusers() -> None:
    assert suspicion_bounds(5, CONFIG) == (4.0, 24.0)
    assert suspicion_bounds(1000, CONFIG)[0] == pytest.approx(12.0)
    suspicion = Suspicion(0.0, 100)
    ends: list[float] = []
    for accuser in KEYS[:6]:
        fresh = suspicion.confirm(accuser, CONFIG)
        assert fresh == (len(ends) < 4) and not suspicion.confirm(accuser, CONFIG)
        ends.append(suspicion.deadline(CONFIG))
    assert ends[0] == pytest.approx(48.0) and ends[3:] == pytest.approx([8.0] * 3)
    assert ends == sorted(ends, reverse=True)
    assert ends[0] - ends[1] > ends[1] - ends[2] > ends[2] - ends[3], "logarithmically"
    assert Suspicion(1.0, 0, {KEYS[0]}).deadline(CONFIG) == 5.0


def test_news_are_sent_as_often_as_the_swarm_is_large() -> None:
    assert [transmissions(4, size) for size in (0, 1, 9, 10, 99, 100, 999, 1000)] == [0, 4, 4, 8, 8, 12, 12, 16]


def test_timers_keep_one_deadline_a_name() -> None:
    timers = Timers()
    assert timers.next() == math.inf and timers.take(9.0) is None
    timers.set(Timer.SYNC, 5.0)
    timers.set(Timer.SYNC, 3.0)
    timers.set_earlier(Timer.SYNC, 4.0)
    timers.set(Timer.PROBE, 1.0)
    timers.cancel(Timer.PROBE)
    assert timers.next() == 3.0
    assert timers.take(3.0) == (Timer.SYNC, b"") and timers.next() == math.inf
