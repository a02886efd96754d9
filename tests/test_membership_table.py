"""The merge of the peer table does not depend on order, grouping or repetition; and the table's bounds hold."""

import random
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_core_ed25519_sub

from protocol.identity import curve_public_key_of
from protocol.membership.messages import State
from protocol.membership.peer_table import Merge, PeerTable, Standing, join
from protocol.membership.records import PeerFacts, PeerRecord, sign_record
from scripts.membership_lab.simulator import identity_of

RNG = random.Random(0)
RECORDS = [
    sign_record(identity_of(peer), PeerFacts(agent=agent), seq, left)
    for peer in range(3)
    for seq in (1, 2)
    for agent in ("one", "two")
    for left in (False, True)
]
OF_ONE_PEER = [record for record in RECORDS if record.public_key == RECORDS[0].public_key]
STANDINGS = st.builds(
    Standing, st.sampled_from(OF_ONE_PEER), st.sampled_from([State.ALIVE, State.SUSPECT, State.DEAD]), st.booleans()
)


def table(max_peers: int = 100, max_tombstones: int = 100) -> PeerTable:
    return PeerTable(max_peers, max_tombstones, tombstone_s=86400.0)


def content(peers: PeerTable) -> list[tuple[bytes, Standing]]:
    pairs = ((entry.record.public_key, entry.standing) for entry in peers.entries())
    return sorted(pairs, key=lambda pair: pair[0])


@given(STANDINGS, STANDINGS, STANDINGS)
def test_join_is_commutative_associative_and_idempotent(a: Standing, b: Standing, c: Standing) -> None:
    assert join(a, b) == join(b, a)
    assert join(a, join(b, c)) == join(join(a, b), c)
    assert join(a, a) == a
    assert join(a, join(a, b)) == join(a, b)


@given(st.lists(st.sampled_from(RECORDS), max_size=12), st.randoms(use_true_random=False))
def test_a_table_is_the_same_in_any_order(records: list[PeerRecord], rng: random.Random) -> None:
    first, second = table(), table()
    shuffled = records + rng.sample(records, len(records) // 2)
    rng.shuffle(shuffled)
    for record in records:
        first.merge(record, 0.0, RNG)
    for record in shuffled:
        second.merge(record, 0.0, RNG)
    assert content(first) == content(second)
    assert first.hash == second.hash
    live = [entry.record.digest for entry in first.entries() if entry.state <= State.SUSPECT]
    assert int.from_bytes(first.hash, "big") == sum(int.from_bytes(digest, "big") for digest in live) % (1 << 256)


@given(STANDINGS, STANDINGS)
def test_what_wins(a: Standing, b: Standing) -> None:
    both = join(a, b)
    assert both.record.seq == max(a.record.seq, b.record.seq)
    if a.record.seq == b.record.seq:
        assert both.record.digest == max(a.record.digest, b.record.digest)
        assert both.doubt == max(a.doubt, b.doubt)
        assert both.forked == (a.forked or b.forked or a.record != b.record)
    else:
        assert both in (a, b)


def test_states_are_ordered_as_the_protocol_says() -> None:
    assert State.LEFT > State.DEAD > State.SUSPECT > State.ALIVE
    gone = sign_record(identity_of(0), PeerFacts(), 1, left=True)
    assert reduce(join, [Standing(gone), Standing(gone, State.DEAD)]).state is State.LEFT


def test_what_a_merge_says() -> None:
    peers, (old, fork, new) = table(), [record for record in OF_ONE_PEER if not record.left][:3]
    assert old.seq == fork.seq < new.seq
    outcomes = [peers.merge(record, 0.0, RNG) for record in (old, old, fork, fork, new, old)]
    assert outcomes == [Merge.NEW, Merge.KNOWN, Merge.FORKED, outcomes[3], Merge.NEWER, Merge.STALE]
    assert peers.key_of(new.peer_id) == new.public_key


def test_a_curve_key_has_one_peer_id_and_the_same_everywhere() -> None:
    """`A` and `-A`: the second cannot be signed for here, so the table gets it unsigned."""
    record = RECORDS[0]
    identity_point = bytes([1]) + bytes(31)
    negative = crypto_core_ed25519_sub(identity_point, record.public_key)
    assert curve_public_key_of(negative) == record.curve_key
    twin = PeerRecord(negative, record.peer_id, record.curve_key, 9, record.facts, False, b"twin", bytes(32))
    for order in ([record, twin], [twin, record]):
        peers = table()
        outcomes = [peers.merge(entry, 0.0, RNG) for entry in order]
        assert [entry.record.public_key for entry in peers.entries()] == [min(negative, record.public_key)]
        assert (Merge.REFUSED in outcomes) != bool(peers.displaced)


def test_tombstones_run_out_and_are_few() -> None:
    peers = table(max_tombstones=2)
    records = [sign_record(identity_of(number), PeerFacts(), 1) for number in range(4)]
    for number, record in enumerate(records):
        peers.merge(record, 0.0, RNG)
        peers.set_doubt(record.public_key, State.DEAD, float(number))
    assert peers.expire(10.0) == records[:2]
    assert peers.expire(86401.0) == []
    peers.set_doubt(records[3].public_key, State.ALIVE, 86401.0)
    assert peers.expire(86402.5) == [records[2]]
    assert [entry.record for entry in peers.entries()] == [records[3]]
    assert len(peers.live) == 1 and len(peers.dead) == 0


def test_a_full_table_makes_room_for_whom_it_hears_itself_only() -> None:
    peers = table(max_peers=2, max_tombstones=0)
    records = [sign_record(identity_of(number), PeerFacts(), 1) for number in range(5)]
    assert [peers.merge(record, 0.0, RNG) for record in records[:3]] == [Merge.NEW, Merge.NEW, Merge.REFUSED]
    assert peers.merge(sign_record(identity_of(9), PeerFacts(), 1, left=True), 0.0, RNG) is Merge.REFUSED
    entry = peers.get(records[0].public_key)
    assert entry is not None
    entry.heard_at = 0.0
    assert peers.merge(records[3], 0.0, RNG, verified=True) is Merge.NEW
    assert peers.displaced == [records[1]], "the one that was heard stays"
    made = peers.get(records[3].public_key)
    assert made is not None
    made.heard_at = 0.0
    assert peers.merge(records[4], 0.0, RNG, verified=True) is Merge.REFUSED
