"""Results that a device hands on to the next one: what the client sealed is computed, once, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
import zmq
from live_nodes import LiveNode, RawClient, RawListener
from made_parts import KERNELS, identity, weights_of
from msgspec.structs import replace
from served_units import UNITS, introduced
from test_model_checkpoints import TINY, write_checkpoint
from test_serving_spans import ANNA, BEN, KEY, caches_of, computed, opening, rows, step
from waiting import until

from node.serving.relays import MAX_ANSWERS, MAX_LINES, SHUN_S, Relays
from node.serving.spans import MAX_CANCELLED, Client, SpanCaches
from node.serving.worker import LinearWorker
from node.store.library import Library
from node.store.stored import StoredModel
from node.transport.conduct import MALFORMED_LIMIT
from node.transport.registry import ConnectedPeer
from node.transport.sockets import SecureContext
from protocol.codec import decode_message, encode_message
from protocol.identity import PeerId
from protocol.limits import MAX_DATA_HEADER_BYTES, MAX_ONWARD, MAX_STEP_PARTS
from protocol.linear.field import Floats
from protocol.link.hello import Hello
from protocol.link.messages import Pong
from protocol.message import Message, Ping
from protocol.spans.binding import SpanBinding, SpanRows, rows_hash, span_digest
from protocol.spans.messages import SpanOpen, SpanOpened, SpanPass, SpanResult, SpanStep
from protocol.spans.onward import Onward, most_onward, seal_of

SIZE = TINY["hidden_size"]
CLIENT = 7
SENDER, RECEIVER = 1, 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    root = tmp_path_factory.mktemp("passes")
    return Library(root / "models").resolve(write_checkpoint(root / "made", {"num_hidden_layers": 2}))


def sealed(opened: SpanOpen, start: int, hidden: Floats, nonce: int, sender: PeerId = BEN) -> SpanPass:
    """A step that the sender may hand on."""
    binding = step(opened, start, hidden, nonce).binding
    return SpanPass(binding, hidden, (), seal_of(opened.key, sender, binding, ()))


def changed_binding(honest: SpanPass) -> SpanPass:
    (part,) = honest.binding.parts
    return replace(honest, binding=replace(honest.binding, parts=(replace(part, start=1, stop=4),)))


FORGERIES: dict[str, Callable[[SpanPass], SpanPass]] = {
    "no seal": lambda honest: replace(honest, seal=bytes(32)),
    "another position": changed_binding,
    "another nonce": lambda honest: replace(honest, binding=replace(honest.binding, nonce=99)),
    "on to somebody else": lambda honest: replace(honest, onward=(Onward(BEN, honest.binding, bytes(32)),)),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_only_what_the_client_sealed_counts(model: StoredModel, forgery: str) -> None:
    caches, opened = caches_of(model), opening(model, 1)
    caches.open(Client(ANNA), opened)
    honest = sealed(opened, 0, rows(3), nonce=6)
    assert caches.client_of(BEN, FORGERIES[forgery](honest)) is None
    assert caches.client_of(ANNA, honest) is None, "it is sealed for another sender"
    assert caches.client_of(BEN, honest) == Client(ANNA), "a forgery does not use it up"


def test_it_counts_once_and_not_after_a_later_step(model: StoredModel) -> None:
    caches, opened = caches_of(model), opening(model, 1)
    assert caches.client_of(BEN, sealed(opened, 0, rows(3), nonce=6)) is None, "there is no such cache"
    caches.open(Client(ANNA), opened)
    assert caches.client_of(BEN, sealed(opened, 0, rows(3), nonce=6)) == Client(ANNA)
    assert caches.client_of(BEN, sealed(opened, 0, rows(3), nonce=6)) is None
    later = Client(ANNA, route=b"another connection")
    assert caches.admit(later, step(opened, 0, rows(3), nonce=9))
    assert caches.client_of(BEN, sealed(opened, 3, rows(1), nonce=8)) is None, "its client has gone on without it"
    assert caches.client_of(BEN, sealed(opened, 3, rows(1), nonce=10)) == later


def test_what_the_client_has_cancelled_is_not_computed(model: StoredModel) -> None:
    caches, opened = caches_of(model), opening(model, 1)
    caches.cancel(ANNA, 5)
    caches.open(Client(ANNA), opened)
    caches.cancel(BEN, 6)
    caches.cancel(ANNA, 7)
    assert caches.client_of(BEN, sealed(opened, 0, rows(3), nonce=6)) == Client(ANNA)
    assert caches.client_of(BEN, sealed(opened, 3, rows(1), nonce=7)) is None
    for number in range(MAX_CANCELLED):
        caches.cancel(ANNA, 100 + number)
    assert len(caches._cancelled) == MAX_CANCELLED


def test_caches_of_two_clients_are_never_one_step(model: StoredModel) -> None:
    caches, own, other = caches_of(model), opening(model, 1), opening(model, 2)
    caches.open(Client(ANNA), own)
    caches.open(Client(BEN), other)
    parts = (SpanRows(own.cache, 0, 1), SpanRows(other.cache, 0, 1))
    binding = SpanBinding(6, model.model_id_bytes, 0, 2, parts)
    assert caches.client_of(BEN, SpanPass(binding, rows(2), (), seal_of(KEY, BEN, binding, ()))) is None


@pytest.mark.parametrize("num_parts", [1, 2, 9, 20, MAX_STEP_PARTS])
def test_a_way_fits_into_a_header(num_parts: int) -> None:
    """With the longest numbers that there are."""
    parts = tuple(SpanRows(bytes([index] * 16), (1 << 24) - 9, (1 << 24) - 8) for index in range(num_parts))
    binding = SpanBinding((1 << 63) - 1, bytes(32), 4000, 4096, parts)
    way = (Onward(BEN, binding, bytes(32)),) * most_onward(num_parts)
    header = encode_message(SpanPass(binding, rows(num_parts), way, bytes(32)), (1 << 63) - 1)[0]
    assert len(header) <= MAX_DATA_HEADER_BYTES
    assert way and (num_parts > 1 or len(way) == MAX_ONWARD)


# --- two devices


class Device(LiveNode):
    """A device that computes both layers of the model for devices that are paired with it."""

    def __init__(self, index: int, model: StoredModel, paired: set[PeerId], other: LiveNode | None = None) -> None:
        self.caches = SpanCaches(KERNELS, {model.model_id_bytes: model}.get, lambda: 1 << 30)
        worker = LinearWorker(KERNELS, weights_of(UNITS), spans=self.caches)
        bootstrap = () if other is None or other.address is None else (other.address,)
        super().__init__(index, UNITS, worker=worker, paired=paired, bootstrap=bootstrap)
        self.faults: list[tuple[PeerId, str]] = []
        self.data._reception._on_fault = lambda peer_id, why: self.faults.append((peer_id, why))


class Pair:
    """Two devices that know each other, and a client of both with a cache of one layer at each."""

    def __init__(self, model: StoredModel, first: Device, second: Device, one: RawClient, two: RawClient) -> None:
        self.model, self.devices = model, (first, second)
        self.ends = one, two
        self.opened = opening(model, 1, 0, 1), opening(model, 2, 1, 2)
        self._ids = iter(range(100, 1000))
        for index in range(2):
            assert isinstance(self.ask(index, self.opened[index]), SpanOpened)

    def ask(self, index: int, message: Message) -> Message:
        message_id = message.binding.nonce if isinstance(message, SpanStep) else next(self._ids)
        self.ends[index].send(message, message_id)
        return self.answer(index, message_id)

    def answer(self, index: int, message_id: int) -> Message:
        received = self.ends[index].receive()
        assert received is not None and received.id == message_id
        return received.message

    def step(self, hidden: Floats, start: int = 0) -> tuple[SpanStep, Onward]:
        """A step for the first device, whose result goes on to the second."""
        after = sealed(self.opened[1], start, hidden, next(self._ids), self.devices[0].peer_id)
        onward = Onward(self.devices[1].peer_id, after.binding, after.seal)
        return replace(step(self.opened[0], start, hidden, next(self._ids)), onward=(onward,)), onward


@pytest.fixture
def paired() -> set[PeerId]:
    return {identity(CLIENT).peer_id}


@pytest.fixture
def pair(model: StoredModel, paired: set[PeerId]) -> Iterator[Pair]:
    with Device(RECEIVER, model, paired) as second, Device(SENDER, model, paired, second) as first:
        first.until_knows(second.peer_id)
        with introduced(first, CLIENT) as one, introduced(second, CLIENT) as two:
            yield Pair(model, first, second, one, two)


def handed_on(pair: Pair, hidden: Floats) -> tuple[SpanResult, SpanResult]:
    """Results of both devices, once the first reaches the second."""
    while True:
        asked, onward = pair.step(hidden)
        first = pair.ask(0, asked)
        assert isinstance(first, SpanResult) and first.answers(asked.binding, SIZE) and first.inputs is None
        if first.passed:
            second = pair.answer(1, onward.binding.nonce)
            assert isinstance(second, SpanResult) and second.answers(onward.binding, SIZE)
            return first, second


def test_a_result_goes_on_and_both_answer_the_client(pair: Pair) -> None:
    hidden = rows(3)
    first, second = handed_on(pair, hidden)
    assert second.inputs == rows_hash(first.rows) and not second.passed
    alone = caches_of(pair.model)
    whole = opening(pair.model, 3)
    alone.open(Client(ANNA), whole)
    assert second.rows.tobytes() == computed(alone, step(whole, 0, hidden)).rows.tobytes()


def test_a_step_that_is_handed_on_is_its_clients_alone(pair: Pair) -> None:
    """Whoever brings it asks for nothing: nobody is made room for, in parts of a step."""
    handed_on(pair, rows(1))
    client, bearer = identity(CLIENT).peer_id, pair.devices[0].peer_id
    data = pair.devices[1].data
    assert not data._is_shared(client) and data._is_shared(bearer)


def test_a_device_that_is_not_there_is_no_obstacle(pair: Pair) -> None:
    asked, onward = pair.step(rows(1))
    stranger = replace(asked, onward=(replace(onward, peer_id=identity(30).peer_id),))
    result = pair.ask(0, stranger)
    assert isinstance(result, SpanResult) and not result.passed


def test_who_is_paired_no_longer_gets_nothing_computed(pair: Pair, paired: set[PeerId]) -> None:
    """The device that hands rows on is not paired at all; who opened the cache must be."""
    with introduced(pair.devices[1], 11) as member:
        sender = identity(11).peer_id
        member.send(sealed(pair.opened[1], 0, rows(1), 900, sender), 1)
        assert isinstance(pair.answer(1, 900), SpanResult)
        paired.clear()
        member.send(sealed(pair.opened[1], 1, rows(1), 901, sender), 1)
        member.send(Ping(), 2)
        received = member.receive()
        assert received is not None and received.id == 2, "the sender is told nothing"
    pair.ends[1].send(Ping(), 3)
    assert isinstance(pair.answer(1, 3), Pong), "and the client gets no result"


def test_whoever_brings_what_is_not_sealed_for_him_changes_nothing(pair: Pair) -> None:
    """Nor is he kept out: an honest device cannot tell whether what its client seals is right."""
    asked, onward = pair.step(rows(1))
    with introduced(pair.devices[1], 11) as member:
        for seal in (bytes(32), onward.seal):
            for _ in range(MALFORMED_LIMIT + 1):
                member.send(SpanPass(onward.binding, asked.rows, (), seal), 1)
        member.send(Ping(), 2)
        received = member.receive()
        assert received is not None and received.id == 2
    assert not pair.devices[1].faults
    first, second = handed_on(pair, rows(2))
    assert second.inputs == rows_hash(first.rows)


# --- lines to the next device


class Lines:
    """What hands results on, as a data plane uses it, and the devices that it dials."""

    def __init__(self, secure: SecureContext, listeners: Sequence[RawListener]) -> None:
        self.poller, self.now = zmq.Poller(), 0.0
        self.known = {one.identity.peer_id: _peer_at(one) for one in listeners}
        self.relays = Relays(secure, self.poller, self.known.get, lambda: self.now)
        self.hidden = rows(1)

    def hand_on(self, peer_id: PeerId) -> bool:
        binding = SpanBinding(1, bytes(32), 0, 1, (SpanRows(bytes(16), 0, 1),))
        asked = SpanStep(binding, self.hidden, (Onward(peer_id, binding, bytes(32)),))
        answer = self.relays.finished(asked, SpanResult(span_digest(binding, self.hidden), 1, self.hidden))
        assert isinstance(answer, SpanResult)
        return answer.passed

    def turn(self) -> None:
        self.relays.repoll()
        for socket, _ in self.poller.poll(10):
            if not isinstance(socket, zmq.Socket) or not self.relays.read(socket):
                self.relays.look()

    def reaches(self, peer_id: PeerId) -> bool:
        self.turn()
        return self.hand_on(peer_id)


def _peer_at(listener: RawListener) -> ConnectedPeer:
    hello = Hello(listener.identity.public_key, (1,), "raw", (), listener.address.port, (), 0, (1,), bytes(16))
    return ConnectedPeer(listener.identity.peer_id, hello, "127.0.0.1", dialled=False)


@pytest.fixture
def listener() -> Iterator[RawListener]:
    with RawListener(identity(RECEIVER)) as one:
        yield one


@pytest.fixture
def lines(listener: RawListener) -> Iterator[Lines]:
    with SecureContext(identity(SENDER)) as secure:
        made = Lines(secure, [listener])
        yield made
        made.relays.close(0)


def test_a_device_that_talks_over_the_line_is_not_dialled_for_a_while(lines: Lines, listener: RawListener) -> None:
    device = listener.identity.peer_id
    assert not lines.hand_on(device), "it is dialled when there is something for it"
    until(lambda: lines.reaches(device), "it is reached")
    route, *frames = listener.socket.recv_multipart()
    received = decode_message(frames, MAX_DATA_HEADER_BYTES).message
    assert isinstance(received, SpanPass) and received.rows.tobytes() == lines.hidden.tobytes()
    for _ in range(MAX_ANSWERS + 1):
        listener.socket.send_multipart([route, *encode_message(Ping(), 1)])
    until(lambda: not lines.reaches(device), "its line is closed")
    lines.now += SHUN_S - 1
    assert not lines.hand_on(device) and not lines.relays.num_lines
    lines.now += 2
    until(lambda: lines.reaches(device), "it is dialled again")


def test_a_device_that_has_left_gets_nothing(lines: Lines, listener: RawListener) -> None:
    device = listener.identity.peer_id
    until(lambda: lines.reaches(device), "it is reached")
    kept = lines.known.pop(device)
    assert not lines.hand_on(device)
    listener.socket.close(linger=0)
    lines.known[device] = replace(kept, hello=replace(kept.hello, data_port=1))
    until(lambda: not lines.reaches(device), "it has moved")
    del lines.known[device]
    until(lambda: lines.turn() or not lines.relays.num_lines, "the line is given up")


def test_the_oldest_line_makes_room(lines: Lines, listener: RawListener) -> None:
    known = lines.known[listener.identity.peer_id]
    others = [replace(known, peer_id=identity(100 + index).peer_id) for index in range(MAX_LINES)]
    lines.known.update({one.peer_id: one for one in others})
    until(lambda: lines.reaches(known.peer_id), "it is reached")
    for one in others:
        assert not lines.hand_on(one.peer_id)
    assert lines.relays.num_lines == MAX_LINES
    assert not lines.hand_on(known.peer_id), "its line was dropped"
