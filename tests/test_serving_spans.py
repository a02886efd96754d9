"""Caches that a device keeps for spans: bounded, apart from each other, and gone when nobody needs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from live_nodes import LiveNode
from made_parts import KERNELS, identity, weights_of
from msgspec.structs import replace
from served_units import UNITS, introduced
from test_model_checkpoints import TINY, write_checkpoint
from waiting import until

from node.model.span import SpanLayers, SpanPart
from node.serving.refusal import RequestError
from node.serving.spans import IDLE_S, MAX_CACHES_A_PEER, Client, SpanCaches
from node.serving.worker import LinearWorker
from node.store.held_layers import HeldLayers
from node.store.library import Library
from node.store.stored import StoredModel
from node.store.unit_file import unit_path
from protocol.identity import PeerId
from protocol.linear.field import Floats
from protocol.link.messages import Pong
from protocol.message import ErrorCode, ErrorReply, Message, Ping
from protocol.spans.binding import SpanBinding, SpanRows
from protocol.spans.messages import SpanClose, SpanOpen, SpanOpened, SpanResult, SpanStep

KEY = bytes(range(32))
ANNA, BEN = identity(1).peer_id, identity(2).peer_id
SIZE = TINY["hidden_size"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    root = tmp_path_factory.mktemp("spans")
    return Library(root / "models").resolve(write_checkpoint(root / "made", {"num_hidden_layers": 3}))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def caches_of(model: StoredModel, limit_bytes: int = 1 << 30, clock: Clock | None = None) -> SpanCaches:
    return SpanCaches(KERNELS, {model.model_id_bytes: model}.get, lambda: limit_bytes, clock or Clock())


def opening(model: StoredModel, name: int, first: int = 0, end: int = 2, capacity: int = 64) -> SpanOpen:
    return SpanOpen(name.to_bytes(16, "big"), model.model_id_bytes, first, end, capacity, capacity, KEY)


def rows(count: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((count, SIZE), dtype=np.float32)


def step(opened: SpanOpen, start: int, hidden: Floats, nonce: int = 1) -> SpanStep:
    part = SpanRows(opened.cache, start, start + len(hidden))
    return SpanStep(SpanBinding(nonce, opened.model_id, opened.first, opened.end, (part,)), hidden)


def computed(caches: SpanCaches, request: SpanStep) -> SpanResult:
    (result,) = together(caches, request)
    if isinstance(result, RequestError):
        raise result
    assert result.answers(request.binding, SIZE)
    return result


def together(caches: SpanCaches, *requests: SpanStep) -> list[SpanResult | RequestError]:
    parts = caches.parts(requests, lambda: 0.0)
    while True:
        try:
            next(parts)
        except StopIteration as finished:
            outcomes: list[SpanResult | RequestError] = finished.value
            return outcomes


def refused(caches: SpanCaches, request: SpanStep) -> ErrorCode:
    with pytest.raises(RequestError) as caught:
        computed(caches, request)
    return caught.value.code


def test_a_step_computes_what_the_layers_compute_and_truncates(model: StoredModel) -> None:
    caches, opened, hidden = caches_of(model), opening(model, 1), rows(9)
    assert caches.open(Client(ANNA), opened) == SpanOpened(round(IDLE_S))
    layers = SpanLayers(model, KERNELS, range(2))
    whole = layers.forward(hidden.copy(), [SpanPart(layers.new_cache(64, 64), 0, 9)])
    found = [computed(caches, step(opened, 0, hidden[:5])).rows, computed(caches, step(opened, 5, hidden[5:])).rows]
    assert np.concatenate(found).tobytes() == whole.tobytes()
    assert computed(caches, step(opened, 3, hidden[3:])).rows.tobytes() == whole[3:].tobytes()
    assert refused(caches, step(opened, 10, hidden[:1])) is ErrorCode.NO_CACHE
    assert computed(caches, step(opened, 9, hidden[:1])).rows.shape == (1, SIZE)


def test_an_unfinished_step_leaves_the_cache_as_it_was_before_its_rows(model: StoredModel) -> None:
    caches, opened, hidden = caches_of(model), opening(model, 1, 0, 3), rows(6)
    caches.open(Client(ANNA), opened)
    first = computed(caches, step(opened, 0, hidden[:4])).rows
    begun = caches.parts([step(opened, 2, rows(4, seed=9))], lambda: 0.0)
    next(begun)  # one layer of three has other keys and values in these positions now
    begun.close()
    assert refused(caches, step(opened, 3, hidden[3:4])) is ErrorCode.NO_CACHE, "it holds two tokens"
    again = computed(caches, step(opened, 2, hidden[2:4])).rows
    assert again.tobytes() == first[2:].tobytes()


def test_steps_that_pause_in_turn_have_the_bits_that_each_has_alone(model: StoredModel) -> None:
    caches, texts = caches_of(model), [rows(4, seed) for seed in range(2)]
    expected = [alone_through_all(model, text) for text in texts]
    opened = [opening(model, name, 0, 3) for name in range(2)]
    for one in opened:
        caches.open(Client(ANNA), one)
    steps = [step(one, 0, text) for one, text in zip(opened, texts, strict=True)]
    pauses, running, found = 0, [caches.parts([one], lambda: 0.0) for one in steps], list[bytes]()
    while len(found) < 2:  # each goes through one layer at a time
        for one in running:
            try:
                next(one)
                pauses += 1
            except StopIteration as finished:
                (result,) = finished.value
                found.append(result.rows.tobytes())
    assert found == expected and pauses == 4


def alone_through_all(model: StoredModel, text: Floats) -> bytes:
    layers = SpanLayers(model, KERNELS, range(3))
    return layers.forward(text.copy(), [SpanPart(layers.new_cache(64, 64), 0, len(text))]).tobytes()


def test_steps_of_several_clients_together_have_the_bits_that_each_has_alone(model: StoredModel) -> None:
    alone, shared, texts = caches_of(model), caches_of(model), [rows(4, seed) for seed in range(3)]
    opened = [opening(model, name) for name in range(3)]
    for caches in (alone, shared):
        for one, owner in zip(opened, (ANNA, BEN, identity(3).peer_id), strict=True):
            caches.open(Client(owner), one)
    expected = [computed(alone, step(one, 0, text)) for one, text in zip(opened, texts, strict=True)]
    found = together(shared, *(step(one, 0, text) for one, text in zip(opened, texts, strict=True)))
    for right, result in zip(expected, found, strict=True):
        assert isinstance(result, SpanResult)
        assert result.rows.tobytes() == right.rows.tobytes() and result.digest == right.digest
    more = together(shared, *(step(one, 4, rows(1, 9)) for one in opened))
    for one, result in zip(opened, more, strict=True):
        assert isinstance(result, SpanResult)
        assert result.rows.tobytes() == computed(alone, step(one, 4, rows(1, 9))).rows.tobytes()


def test_a_step_that_cannot_be_computed_spoils_no_other(model: StoredModel) -> None:
    caches, good, worse = caches_of(model), opening(model, 1), opening(model, 2)
    for owner, opened in ((ANNA, good), (BEN, worse)):
        caches.open(Client(owner), opened)
    expected = computed(caches, step(good, 0, rows(2)))
    nan = step(worse, 0, np.full((2, SIZE), np.nan, np.float32))
    for bad, code in ((nan, ErrorCode.INVALID), (step(opening(model, 9), 0, rows(1)), ErrorCode.NO_CACHE)):
        for order in ((0, 1), (1, 0)):
            asked = [step(good, 0, rows(2)), bad]
            found = together(caches, *(asked[place] for place in order))
            result, refusal = found[order.index(0)], found[order.index(1)]
            assert isinstance(result, SpanResult) and result.rows.tobytes() == expected.rows.tobytes()
            assert isinstance(refusal, RequestError) and refusal.code is code
    assert not caches._in_use


def test_what_is_not_here_or_not_asked_for_rightly_is_refused(model: StoredModel) -> None:
    caches, opened = caches_of(model), opening(model, 1)
    for wrong in (
        replace(opened, model_id=bytes(32)),
        replace(opened, first=2, end=4),
    ):
        answer = caches.open(Client(ANNA), wrong)
        assert isinstance(answer, ErrorReply) and answer.code == ErrorCode.NOT_FOUND
    caches.open(Client(ANNA), opened)
    answer = caches.open(Client(BEN), opened)
    assert isinstance(answer, ErrorReply) and answer.code == ErrorCode.INVALID, "nobody takes over another's cache"
    request = step(opened, 0, rows(2))
    assert refused(caches, replace(request, binding=replace(request.binding, end=1))) is ErrorCode.INVALID
    assert (
        refused(caches, replace(request, binding=replace(request.binding, model_id=bytes(32)))) is ErrorCode.NOT_FOUND
    )
    assert refused(caches, step(opened, 0, np.ones((2, SIZE + 1), np.float32))) is ErrorCode.INVALID
    assert refused(caches, step(opened, 0, np.full((2, SIZE), np.nan, np.float32))) is ErrorCode.INVALID
    assert caches.admit(Client(ANNA), request) and not caches.admit(Client(BEN), request)
    assert caches.admit(Client(BEN), step(opening(model, 9), 0, rows(2))), "what is not there is nobody's"
    small = opening(model, 2, capacity=4)
    caches.open(Client(ANNA), small)
    assert refused(caches, step(small, 0, rows(5))) is ErrorCode.INVALID
    assert computed(caches, request).rows.shape == (2, SIZE)


def test_a_cache_ends_by_its_owner_by_time_and_for_want_of_memory(model: StoredModel) -> None:
    clock = Clock()
    caches = caches_of(model, clock=clock)
    first, second = opening(model, 1), opening(model, 2)
    for opened in (first, second):
        caches.open(Client(ANNA), opened)
        computed(caches, step(opened, 0, rows(3)))
    caches.close(BEN, first.cache)
    computed(caches, step(first, 3, rows(1)))
    caches.close(ANNA, first.cache)
    assert refused(caches, step(first, 4, rows(1))) is ErrorCode.NO_CACHE
    clock.now = IDLE_S + 1
    caches.drop_idle()
    assert refused(caches, step(second, 3, rows(1))) is ErrorCode.NO_CACHE and len(caches) == 0

    for number in range(MAX_CACHES_A_PEER + 1):
        assert isinstance(caches.open(Client(ANNA), opening(model, 100 + number)), SpanOpened)
    assert len(caches) == MAX_CACHES_A_PEER
    assert refused(caches, step(opening(model, 100), 0, rows(1))) is ErrorCode.NO_CACHE, "the oldest went"
    caches.forget(ANNA)
    assert len(caches) == 0

    caches.open(Client(BEN), first)
    computed(caches, step(first, 0, rows(1)))
    tight = caches_of(model, limit_bytes=caches.num_bytes + 1)
    for opened in (first, second):
        tight.open(Client(ANNA), opened)
        computed(tight, step(opened, 0, rows(1)))
    assert refused(tight, step(first, 1, rows(1))) is ErrorCode.NO_CACHE, "the one that was used longest ago went"
    assert computed(tight, step(second, 1, rows(1))).rows.shape == (1, SIZE)
    assert refused(caches_of(model, limit_bytes=1), step(first, 0, rows(1))) is ErrorCode.NO_CACHE
    whole_growth = caches.num_bytes
    for limit, is_enough in ((1, False), (whole_growth - 1, False), (whole_growth, True)):
        bounded = caches_of(model, limit_bytes=limit)
        bounded.open(Client(ANNA), first)
        if is_enough:
            assert computed(bounded, step(first, 0, rows(1))).rows.shape == (1, SIZE)
        else:  # one row makes room for many, and that counts
            assert refused(bounded, step(first, 0, rows(1))) is ErrorCode.EXHAUSTED
        assert bounded.num_bytes <= limit


def test_spans_are_for_paired_devices_alone_and_each_has_its_own_caches(model: StoredModel) -> None:
    """Over real sockets: whoever is not paired is told so; a paired device cannot step in another's cache."""
    paired: set[PeerId] = set()
    caches = SpanCaches(KERNELS, {model.model_id_bytes: model}.get, lambda: 1 << 30)
    worker = LinearWorker(KERNELS, weights_of(UNITS), spans=caches)
    opened = opening(model, 1)
    request = step(opened, 0, rows(3), nonce=6)
    with LiveNode(1, UNITS, worker=worker, paired=paired) as node, introduced(node) as client:

        def answer(message: Message) -> Message:
            client.send(message, 6)
            received = client.receive()
            assert received is not None and received.id == 6
            return received.message

        for message in (opened, request):
            told = answer(message)
            assert isinstance(told, ErrorReply) and told.code == ErrorCode.DENIED
        assert len(caches) == 0
        paired.add(client.identity.peer_id)
        assert isinstance(answer(opened), SpanOpened)
        result = answer(request)
        assert isinstance(result, SpanResult) and result.answers(request.binding, SIZE)
        assert isinstance(answer(Ping()), Pong)

        others = opening(model, 2)
        caches.open(Client(BEN), others)
        told = answer(step(others, 0, rows(1), nonce=6))
        assert isinstance(told, ErrorReply) and told.code == ErrorCode.NO_CACHE
        client.send(SpanClose(others.cache), 6)
        client.send(SpanClose(opened.cache), 6)
        until(lambda: len(caches) == 1, "its own is closed, the other's is not")


def test_layers_that_are_held_are_computed_and_others_not(model: StoredModel, tmp_path: Path) -> None:
    folder = tmp_path / model.model_id
    folder.mkdir()
    for name in ("manifest.cbor", "client.safetensors"):
        (folder / name).write_bytes((model.path / name).read_bytes())
    (folder / "units").mkdir()
    for ref in model.units:
        if ref.layer == 1:
            unit_path(folder / "units", ref.sha256).write_bytes(
                unit_path(model.path / "units", ref.sha256).read_bytes()
            )
    caches, hidden = caches_of(HeldLayers(folder)), rows(4)
    opened = opening(model, 1, 1, 2)
    assert isinstance(caches.open(Client(ANNA), opened), SpanOpened)
    layers = SpanLayers(model, KERNELS, range(1, 2))
    expected = layers.forward(hidden.copy(), [SpanPart(layers.new_cache(64, 64), 0, 4)])
    assert computed(caches, step(opened, 0, hidden)).rows.tobytes() == expected.tobytes()
    answer = caches.open(Client(ANNA), opening(model, 2, 0, 2))
    assert isinstance(answer, ErrorReply) and answer.code == ErrorCode.NOT_FOUND
