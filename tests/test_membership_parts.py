"""The small parts of membership at their bounds: queues, rotations, digests, sets of keys."""

import random

from protocol.membership.gossip import MAX_GOSSIP_BYTES, MAX_QUEUED, GossipQueue
from protocol.membership.key_set import KeySet
from protocol.membership.messages import MAX_MESSAGE_CLAIMS, Claim, Digest, DigestEntry, State
from protocol.membership.peer_table import PeerTable
from protocol.membership.probing import MAX_SCANNED, MAX_URGENT, Rotation
from protocol.membership.records import PeerFacts, sign_record
from protocol.membership.sync import MAX_FRAMES, Difference, difference
from scripts.membership_lab.simulator import identity_of

RNG = random.Random(3)
KEYS = [bytes([number]) * 32 for number in range(255)]


def claim(number: int) -> Claim:
    return Claim(KEYS[number % 255], number, State.SUSPECT, KEYS[0])


def test_a_message_of_news_is_bounded_and_the_rest_comes_next() -> None:
    queue = GossipQueue()
    for number in range(MAX_MESSAGE_CLAIMS + 10):
        queue.put(number, claim(number))
    first = queue.take(3, 6, lambda item: True)
    second = queue.take(3, 6, lambda item: True)
    assert first is not None and second is not None
    assert 80 * len(first.claims) <= MAX_GOSSIP_BYTES
    assert not set(second.claims[:10]) & set(first.claims), "what was not sent yet goes first"


def test_records_do_not_overfill_a_message() -> None:
    queue = GossipQueue()
    for number in range(100):
        record = sign_record(identity_of(number), PeerFacts(agent="a" * 60), 1)
        queue.put(number, record)
    message = queue.take(1, 1, lambda item: True)
    assert message is not None and 30 < len(message.records) < 100
    assert sum(map(len, message.records)) <= MAX_GOSSIP_BYTES
    assert len(queue) == 100 - len(message.records)


def test_a_queue_of_news_drops_the_oldest() -> None:
    queue = GossipQueue()
    for number in range(MAX_QUEUED + 1):
        queue.put(number, claim(number))
    assert len(queue) == MAX_QUEUED
    assert queue.take(1, 9, lambda item: isinstance(item, Claim) and item.seq == 0) is None


def test_a_rotation_names_everybody_once_and_the_urgent_first() -> None:
    rotation, live = Rotation(), KeySet()
    assert rotation.next(live, RNG, lambda key: True) is None
    for key in KEYS[:20]:
        live.add(key)
    assert sorted(filter(None, (rotation.next(live, RNG, lambda key: True) for _ in range(20)))) == KEYS[:20]
    rotation.hurry(KEYS[100])
    rotation.hurry(KEYS[7])
    assert rotation.next(live, RNG, lambda key: False) == KEYS[7]
    looked_at: list[bytes] = []

    def is_well(key: bytes) -> bool:
        looked_at.append(key)
        return False

    assert rotation.next(live, RNG, is_well) is None
    assert len(looked_at) == MAX_SCANNED
    for key in KEYS:
        rotation.hurry(key)
    live_all = KeySet()
    for key in KEYS:
        live_all.add(key)
    assert [rotation.next(live_all, RNG, lambda key: False) for _ in range(MAX_URGENT)] == KEYS[:MAX_URGENT]


def test_a_digest_speaks_of_its_range_only() -> None:
    table = PeerTable(10, 10, 1.0)
    record = sign_record(identity_of(1), PeerFacts(), 1)
    table.merge(record, 0.0, RNG)
    outside = DigestEntry(bytes(32), 1, bytes(8))
    lacking = difference(table, Digest(bytes([1]) + bytes(31), None, (outside,)), KEYS[0])
    assert lacking.wants == [] and lacking.records == [record.envelope]
    assert len(difference(table, Digest(bytes(32), bytes(32), (outside,)), KEYS[0])) == 0


def test_an_answer_has_a_bounded_number_of_frames() -> None:
    everything = Difference([bytes(1200)] * 2000, [claim(number) for number in range(2000)], KEYS * 20)
    assert len(everything.messages()) == MAX_FRAMES
    assert Difference().messages() == []


def test_a_set_of_keys_stays_whole() -> None:
    keys = KeySet()
    for key in KEYS[:5]:
        keys.add(key)
        keys.add(key)
    for key in (KEYS[0], KEYS[4], KEYS[4], KEYS[9]):
        keys.discard(key)
    assert sorted(keys) == KEYS[1:4] and len(keys) == 3 and KEYS[2] in keys
    assert sorted(keys.sample(RNG, 9)) == KEYS[1:4]
