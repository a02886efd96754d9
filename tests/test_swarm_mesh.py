"""Whom to dial next: every two members get a link, nobody is hammered, the dead are tried now and then."""

import random
from itertools import pairwise

from made_parts import identity

from node.swarm.mesh import DEAD_PAUSE_S, GRACE_S, MAX_DIALS, MAX_LINKED, MAX_PAUSE_S, Candidate, Mesh
from protocol.identity import PeerId

IDS = sorted(identity(index).peer_id for index in range(1, 40))
ME = IDS[20]
SMALLER, LARGER = IDS[3], IDS[30]


def mesh() -> Mesh:
    return Mesh(ME, random.Random(1))


def alive(*peers: PeerId) -> list[Candidate]:
    return [Candidate(peer, True) for peer in peers]


def test_the_smaller_dials_at_once_and_the_larger_waits_its_turn() -> None:
    plan = mesh()
    assert plan.due(0.0, alive(SMALLER, LARGER), ()) == [LARGER]
    assert plan.due(GRACE_S - 0.1, alive(SMALLER, LARGER), ()) == []
    assert plan.due(GRACE_S, alive(SMALLER, LARGER), ()) == [SMALLER], "one way may be blocked: then it tries too"


def test_who_has_just_come_back_waits_for_nobody() -> None:
    assert mesh().due(0.0, [*alive(SMALLER), Candidate(LARGER, False)], (), eager=True) == [SMALLER, LARGER]


def test_a_peer_is_dialled_once_at_a_time_and_not_while_it_has_a_link() -> None:
    plan = mesh()
    assert plan.due(0.0, alive(LARGER), ()) == [LARGER]
    assert plan.due(1000.0, alive(LARGER), ()) == []
    plan.ended(1000.0, LARGER, was_up=False, alive=True)
    assert plan.due(2000.0, alive(LARGER), {LARGER}) == []
    assert plan.due(3000.0, alive(LARGER), ()) == [LARGER]


def test_with_enough_links_nobody_is_dialled() -> None:
    """Keys cost nothing: whoever listens under a thousand of them must not use up this node's sockets."""
    others = {PeerId(f"peer {number}") for number in range(MAX_LINKED - 1)}
    plan = mesh()
    assert plan.due(0.0, alive(*IDS[21:25]), others) == [IDS[21]], "there is room for one more"
    plan.ended(0.0, IDS[21], was_up=False, alive=True)
    assert plan.due(1000.0, alive(*IDS[21:25]), others | {PeerId("one more")}) == []


def test_pauses_grow_to_a_limit_and_begin_anew_after_a_link() -> None:
    plan, now, pauses = mesh(), 0.0, []
    for _ in range(12):
        while plan.due(now, alive(LARGER), ()) != [LARGER]:
            now += 0.05
        pauses.append(now)
        plan.ended(now, LARGER, was_up=False, alive=True)
    gaps = [later - earlier for earlier, later in pairwise(pauses)]
    assert gaps[0] < 1.0
    assert 0.5 * MAX_PAUSE_S <= gaps[-1] <= 1.5 * MAX_PAUSE_S + 0.1
    while plan.due(now, alive(LARGER), ()) != [LARGER]:
        now += 0.05
    plan.ended(now, LARGER, was_up=True, alive=True)
    assert plan.due(now + 1.0, alive(LARGER), ()) == [LARGER]


def test_the_dead_are_tried_but_seldom() -> None:
    plan, tries, now = mesh(), 0, 0.0
    while now < 600.0:
        if plan.due(now, [Candidate(LARGER, False)], ()):
            tries += 1
            plan.ended(now, LARGER, was_up=False, alive=False)
        now += 0.25
    assert 600.0 / (1.5 * MAX_PAUSE_S) - 1 <= tries <= 2 + 600.0 / (0.5 * DEAD_PAUSE_S)


def test_news_of_a_peer_brings_its_turn_forward() -> None:
    plan = mesh()
    now = 0.0
    for _ in range(10):
        while not plan.due(now, alive(LARGER), ()):
            now += 0.1
        plan.ended(now, LARGER, was_up=False, alive=True)
    assert plan.due(now + 1.0, alive(LARGER), ()) == []
    plan.hurry(now + 1.0, LARGER)
    assert plan.due(now + 2.0, alive(LARGER), ()) == [LARGER]


def test_so_many_are_dialled_at_once_and_no_more() -> None:
    plan, everybody = mesh(), alive(*(peer for peer in IDS if peer != ME))
    first = plan.due(GRACE_S + 1, everybody, ())
    later = plan.due(2 * GRACE_S + 1, everybody, ())
    assert len(first) + len(later) == MAX_DIALS
    for peer in first:
        plan.ended(10.0, peer, was_up=False, alive=True)
    assert len(plan.due(1000.0, everybody, ())) == len(first)


def test_links_that_live_are_in_the_way_of_no_other() -> None:
    plan, everybody = mesh(), [peer for peer in IDS if peer != ME]
    linked: set[PeerId] = set()
    for number in range(4):
        linked.update(plan.due((GRACE_S + 1) * number, alive(*everybody), linked))
    assert linked == set(everybody) and len(linked) > MAX_DIALS


def test_who_is_no_candidate_any_more_is_forgotten() -> None:
    plan = mesh()
    assert plan.due(0.0, alive(SMALLER), ()) == []
    assert plan.due(1.0, [], ()) == []
    assert plan.due(2.0, alive(SMALLER), ()) == [], "its wait begins anew"
    assert plan.due(2.0 + GRACE_S, alive(SMALLER), ()) == [SMALLER]
