"""A chain over devices that fail in every way: whatever they do, the hidden states are those of one device alone.

The devices are real `SpanCaches` behind real sockets of this process and the real codec (`ScriptedChannel`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_parts import KERNELS
from span_home import (
    BINDING,
    HARMLESS,
    IDS,
    LAYERS,
    VISIBLE_LIES,
    WAYS,
    Home,
    Worker,
    dies,
    forgets,
    lies,
    logits_alone,
    logits_of,
    other_rows,
)
from test_model_checkpoints import write_checkpoint

from node.errors import UnitUnavailableError
from node.execution.peer import PeerStatus
from node.kernels import has_same_floats
from node.model.cache import KVCache
from node.model.layers import UnitLayers
from node.model.rotation import Rotation
from node.model.run import Rows
from node.spans.chain import SpanLieError
from node.spans.device import MAX_UNASKED, DeviceError, Flight
from node.spans.stage import Stage
from node.store.library import Library
from node.store.stored import StoredModel
from protocol.codec import decode_message
from protocol.limits import MAX_DATA_HEADER_BYTES
from protocol.linear.field import Floats
from protocol.message import Ping
from protocol.spans.messages import SpanOpened, SpanStep

pytestmark = pytest.mark.skipif(not has_same_floats(KERNELS), reason="the C kernels are not built")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    root = tmp_path_factory.mktemp("chain")
    return Library(root / "models").resolve(write_checkpoint(root / "made", {"num_hidden_layers": LAYERS}))


@pytest.fixture
def open_home(model: StoredModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Home]]:
    homes: list[Home] = []
    monkeypatch.setattr("node.spans.chain.LOST_S", 0.0)
    monkeypatch.setattr("node.spans.chain.SLOWER", 0.0)
    monkeypatch.setattr("node.spans.chain.TURN_S", 0.01)

    def opened(*cuts: int, share: float = 0.0, computes: bool = True, begins_here: bool = False) -> Home:
        homes.append(Home(model, cuts, share, computes, begins_here))
        return homes[-1]

    yield opened
    for home in homes:
        home.close()


@pytest.mark.parametrize("cuts", [(), (2,), (1, 3)])
def test_the_bits_are_those_of_one_device(
    model: StoredModel, open_home: Callable[..., Home], cuts: tuple[int]
) -> None:
    home = open_home(*cuts)
    cache = home.decoder.new_cache()
    assert logits_of(home.decoder, cache, IDS, 20).tobytes() == logits_alone(model, IDS).tobytes()
    assert all(layer.size == 0 for layer in (*cache.keys, *cache.values)), "no keys and values are kept here"
    assert [worker.steps for worker in home.workers[: len(cuts) + 1]] == [11] * (len(cuts) + 1)


def test_several_texts_are_one_step_and_parts_of_a_text_are_used_again(
    model: StoredModel, open_home: Callable[..., Home]
) -> None:
    from node.model.decoder import Part

    home = open_home(2)
    caches = [home.decoder.new_cache() for _ in range(3)]
    texts = [IDS[:4], IDS[3:9], IDS[10:11]]
    found = home.decoder.forward_parts(
        [Part(ids, cache) for ids, cache in zip(texts, caches, strict=True)], [True] * 3
    )
    assert [worker.steps for worker in home.workers] == [1, 1, 0]
    for ids, logits in zip(texts, found, strict=True):
        assert logits is not None and logits.tobytes() == logits_alone(model, ids)[-1].tobytes()

    caches[1].truncate(2)
    assert home.decoder.forward(IDS[20:22], caches[1]).tobytes() == (
        logits_alone(model, [*texts[1][:2], *IDS[20:22]])[-1].tobytes()
    )
    twin = caches[0].beginning(3)  # other devices' caches are not copied: the rows are sent again
    assert home.decoder.forward(IDS[25:27], twin).tobytes() == (
        logits_alone(model, [*texts[0][:3], *IDS[25:27]])[-1].tobytes()
    )
    del caches[1], twin
    home.chain.attend(0)
    assert len(home.workers[0].caches) == len(home.workers[1].caches) == 2, "ended texts are closed there"


def test_a_pass_says_how_many_rows_have_come_through_how_many_layers(open_home: Callable[..., Home]) -> None:
    home, heard = open_home(1, 3), list[int]()
    home.chain.went_through = heard.append
    cache = home.decoder.new_cache()
    home.decoder.forward(IDS[:20], cache)
    assert heard == [20 * 1, 20 * 2, 20 * (LAYERS - 3)]
    heard.clear()
    home.workers[1].faults[2] = forgets
    home.decoder.forward(IDS[20:21], cache)
    assert home.workers[1].steps == 4, "the first, the one without a cache, the rows before it, and this one again"
    assert heard[-3:] == [1, 2, LAYERS - 3] and max(heard) <= LAYERS, "the rows before it are no part of this pass"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(1, LAYERS - 1), max_size=2, unique=True).map(sorted),
    prompt=st.integers(1, len(IDS)),
    faults=st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 14), st.sampled_from(sorted({**HARMLESS, **VISIBLE_LIES}))),
        max_size=5,
    ),
    ways=st.lists(st.sampled_from(sorted(WAYS)), min_size=3, max_size=3),
)
def test_whatever_devices_do_the_bits_stay(
    model: StoredModel,
    open_home: Callable[..., Home],
    cuts: list[int],
    prompt: int,
    faults: list[tuple[int, int, str]],
    ways: list[str],
) -> None:
    home = open_home(*cuts)
    for worker, way in zip(home.workers, ways, strict=True):
        worker.hands_on = WAYS[way]
    for index, at, name in faults:
        home.workers[index].faults[at] = {**HARMLESS, **VISIBLE_LIES}[name]
    cache = home.decoder.new_cache()
    assert logits_of(home.decoder, cache, IDS, prompt).tobytes() == logits_alone(model, IDS).tobytes()
    for worker in home.workers:
        if worker.peer.status is PeerStatus.BANNED:
            assert any(name in VISIBLE_LIES for at, _, name in faults if home.workers[at] is worker)


@pytest.mark.parametrize("name", VISIBLE_LIES)
def test_a_result_that_is_no_answer_bans_at_once(open_home: Callable[..., Home], name: str) -> None:
    home = open_home(2)
    home.workers[1].faults[2] = VISIBLE_LIES[name]
    logits_of(home.decoder, home.decoder.new_cache(), IDS[:4], 2)
    assert home.workers[1].peer.status is PeerStatus.BANNED and home.workers[1].peer.rejected == 1
    assert home.executor.counts.rejected == 1 and home.workers[1].channel.closed


def test_with_a_share_of_1_a_lie_is_never_used(model: StoredModel, open_home: Callable[..., Home]) -> None:
    home = open_home(2, share=1.0)
    home.workers[1].faults[4] = lies(other_rows)
    found = logits_of(home.decoder, home.decoder.new_cache(), IDS, 20)
    assert found.tobytes() == logits_alone(model, IDS).tobytes()
    assert home.workers[1].peer.status is PeerStatus.BANNED
    recheck = home.chain.recheck
    assert recheck is not None and recheck.rows_equal == recheck.rows_seen - 1


def test_a_lie_that_was_used_names_text_and_row(model: StoredModel, open_home: Callable[..., Home]) -> None:
    home = open_home(2, share=0.999999)
    home.workers[0].faults[3] = lies(other_rows)  # the second token: position 21
    cache = home.decoder.new_cache()
    recheck = home.chain.recheck
    assert recheck is not None
    with pytest.raises(SpanLieError) as caught:
        logits_of(home.decoder, cache, IDS, 20)
        recheck.finish()
        home.chain.look_for_lies()
    assert dict(caught.value.wrong) == {cache: 21}
    assert home.workers[0].peer.status is PeerStatus.BANNED
    cache.truncate(21)
    recheck.finish()  # the same liar's later rows are no news
    rest = np.concatenate([home.decoder.forward([token_id], cache)[None] for token_id in IDS[21:]])
    assert rest.tobytes() == logits_alone(model, IDS)[21:].tobytes()
    recheck.finish()
    home.chain.look_for_lies()  # nobody else lied


def test_a_lie_that_is_known_when_a_pass_is_through_gives_no_token(open_home: Callable[..., Home]) -> None:
    home = open_home(2, share=0.999999)
    recheck = home.chain.recheck
    assert recheck is not None
    home.workers[0].faults[1] = lies(other_rows)
    home.chain.after_pass = recheck.finish  # it is computed again just before the last device has answered
    cache = home.decoder.new_cache()
    with pytest.raises(SpanLieError) as caught:
        home.decoder.forward(IDS[:4], cache)
    assert dict(caught.value.wrong) == {cache: 3}


def test_all_rows_of_a_constant_liar_are_one_lie(model: StoredModel, open_home: Callable[..., Home]) -> None:
    home = open_home(2, share=0.999999)
    home.workers[0].faults = dict.fromkeys(range(3, 99), lies(other_rows))
    cache, found = home.decoder.new_cache(), 0
    recheck = home.chain.recheck
    assert recheck is not None
    while cache.length < len(IDS):
        try:
            home.decoder.forward(IDS[cache.length : max(cache.length + 1, 20)], cache)
            if cache.length == len(IDS):
                recheck.finish()
                home.chain.look_for_lies()
        except SpanLieError as lie:
            found += 1
            assert list(lie.wrong) == [cache]
            cache.truncate(lie.wrong[cache])
    assert found == 1 and home.workers[1].peer.status is home.workers[2].peer.status is PeerStatus.ACTIVE
    assert home.decoder.forward([3], cache).tobytes() == logits_alone(model, [*IDS, 3])[-1].tobytes()


def test_a_twin_gets_nothing_that_a_liar_computed(model: StoredModel, open_home: Callable[..., Home]) -> None:
    home = open_home(2)
    home.workers[0].faults[1] = lies(other_rows)
    cache = home.decoder.new_cache()
    home.decoder.forward(IDS[:6], cache)
    twin = cache.beginning(6)
    found = home.decoder.forward(IDS[6:8], twin)
    assert found.tobytes() == logits_alone(model, IDS[:8])[-1].tobytes()


def test_a_chain_that_begins_here_can_begin_again(model: StoredModel, open_home: Callable[..., Home]) -> None:
    home = open_home(2, 4, begins_here=True)
    cache = home.decoder.new_cache()
    home.decoder.forward(IDS[:6], cache)
    twin = cache.beginning(4)
    assert home.decoder.forward(IDS[8:10], twin).tobytes() == (
        logits_alone(model, [*IDS[:4], *IDS[8:10]])[-1].tobytes()
    )
    assert home.decoder.forward(IDS[6:7], cache).tobytes() == logits_alone(model, IDS[:7])[-1].tobytes()


def test_all_texts_of_a_liar_are_told_together(open_home: Callable[..., Home]) -> None:
    home = open_home(share=0.999999)
    home.workers[0].faults = dict.fromkeys((2, 4), lies(other_rows))
    caches = [home.decoder.new_cache() for _ in range(2)]
    recheck = home.chain.recheck
    assert recheck is not None
    found: dict[KVCache, int] = {}
    for ids in (IDS[:4], IDS[4:6]):
        for cache in caches:
            try:
                home.decoder.forward(ids, cache)
            except SpanLieError as lie:
                found |= lie.wrong
    recheck.finish()
    try:
        home.chain.look_for_lies()
    except SpanLieError as lie:
        found |= lie.wrong
    assert found == {caches[1]: 3} or found == {caches[1]: 3, caches[0]: 5}, "the second lie may never be told"
    assert home.workers[0].peer.rejected == 1


def test_a_value_that_is_not_finite_is_the_fault_of_its_text(
    model: StoredModel, open_home: Callable[..., Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    from node.model.decoder import Part, PartError

    home = open_home(2, begins_here=True)
    rows = model.embedding_rows

    def spoilt(token_ids: Sequence[int]) -> Floats:
        hidden = rows(token_ids)
        hidden[np.array(token_ids) == 79] = np.inf
        return hidden

    monkeypatch.setattr(model, "embedding_rows", spoilt)
    caches = [home.decoder.new_cache() for _ in range(3)]
    parts = [Part(IDS * 2, caches[0]), Part([3, 79], caches[1]), Part([4], caches[2])]
    with pytest.raises(PartError) as caught:
        home.decoder.forward_parts(parts, [True] * 3)
    assert caught.value.index == 1


def test_a_device_is_silent_only_if_it_was_asked(open_home: Callable[..., Home]) -> None:
    """A client that was busy itself for a while reads before it judges."""
    home = open_home(2)
    device = home.workers[0].device
    cache = home.decoder.new_cache()
    home.decoder.forward(IDS[:3], cache)
    device._heard_at -= 100.0
    device.flights[7] = Flight(BINDING, (), time.monotonic())
    device.check_alive()
    sent = [decode_message(frames, MAX_DATA_HEADER_BYTES).message for frames in home.workers[0].channel.sent]
    assert sent[-1] == Ping()
    device._pinged_at -= 100.0
    with pytest.raises(DeviceError, match="silent"):
        device.check_alive()
    device.flights.clear()


def test_a_device_that_floods_is_left(model: StoredModel, open_home: Callable[..., Home]) -> None:
    home = open_home()

    def floods(worker: Worker, message_id: int, step: SpanStep) -> bool:
        for number in range(MAX_UNASKED + 2):
            worker.channel.answer(SpanOpened(1), number + 1)
        return False

    home.workers[0].faults[2] = floods
    cache = home.decoder.new_cache()
    found = logits_of(home.decoder, cache, IDS, 20)
    assert found.tobytes() == logits_alone(model, IDS).tobytes()
    assert home.workers[0].peer.status is PeerStatus.SHUT and not home.workers[0].peer.rejected


def test_who_may_no_longer_read_gets_nothing(model: StoredModel, open_home: Callable[..., Home]) -> None:
    home = open_home()
    cache = home.decoder.new_cache()
    home.decoder.forward(IDS[:5], cache)
    home.workers[0].may_read = False
    steps = home.workers[0].steps
    assert home.decoder.forward(IDS[5:6], cache).tobytes() == logits_alone(model, IDS[:6])[-1].tobytes()
    assert home.workers[0].steps == steps


def test_if_nobody_is_left_it_says_so(open_home: Callable[..., Home]) -> None:
    home = open_home(computes=False)
    for worker in home.workers:
        worker.faults = dict.fromkeys(range(1, 9), dies)
    with pytest.raises(UnitUnavailableError):
        home.decoder.forward(IDS[:3], home.decoder.new_cache())
    assert len(home.told) == 3


def test_garbage_counts_as_a_lie(model: StoredModel, open_home: Callable[..., Home]) -> None:
    home = open_home()

    def garbage(worker: Worker, message_id: int, step: SpanStep) -> bool:
        worker.channel.answer_frames([b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100])
        return True

    home.workers[0].faults[1] = garbage
    cache = home.decoder.new_cache()
    assert home.decoder.forward(IDS[:3], cache).tobytes() == logits_alone(model, IDS[:3])[-1].tobytes()
    assert home.workers[0].peer.status is PeerStatus.BANNED


@pytest.mark.parametrize("lent", ["", "split"])
def test_others_do_not_see_how_a_pass_is_cut(
    model: StoredModel, open_home: Callable[..., Home], monkeypatch: pytest.MonkeyPatch, lent: str
) -> None:
    """Steps are short for the user's own devices; what is lent in between goes out as one pass."""
    from node.model.decoder import Part

    monkeypatch.setattr("node.spans.steps.STEP_ROWS", 4)
    home = open_home(1, 3)
    seen: list[int] = []
    here = UnitLayers(model, KERNELS, home.executor, range(1, 3))

    class Watched(UnitLayers):
        def forward(self, hidden: Floats, rotations: Sequence[Rotation], blocks: Sequence[Rows]) -> Floats:
            seen.append(len(hidden))
            assert len({id(block.cache) for block in blocks}) == len(blocks), "each text is one block"
            return super().forward(hidden, rotations, blocks)

    here.__class__ = Watched
    home.chain.stages[1] = Stage(range(1, 3), here, 1, lent)
    home.workers[0].faults[3] = forgets  # the pass begins again
    texts, caches = [IDS[:9], IDS[9:16]], [home.decoder.new_cache() for _ in range(2)]
    found = home.decoder.forward_parts([Part(*pair) for pair in zip(texts, caches, strict=True)], [True] * 2)
    for ids, logits in zip(texts, found, strict=True):
        assert logits is not None and logits.tobytes() == logits_alone(model, ids)[-1].tobytes()
    assert set(seen) == ({16} if lent else {4})
