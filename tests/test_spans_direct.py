"""Rows that go straight from device to device: when they do, and what happens where they do not arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from made_parts import KERNELS
from span_home import IDS, LAYERS, Home, Worker, behind, dies, drops, keeps, logits_alone, logits_of, straight, swaps
from test_model_checkpoints import write_checkpoint

from node.execution.peer import PeerStatus
from node.kernels import has_same_floats
from node.spans.edges import LOST_WEIGHT, MAX_FAILED
from node.store.library import Library
from node.store.stored import StoredModel
from protocol.codec import decode_message
from protocol.limits import MAX_DATA_HEADER_BYTES
from protocol.message import Cancel
from protocol.spans.messages import SpanStep

pytestmark = pytest.mark.skipif(not has_same_floats(KERNELS), reason="the C kernels are not built")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    root = tmp_path_factory.mktemp("direct")
    return Library(root / "models").resolve(write_checkpoint(root / "made", {"num_hidden_layers": LAYERS}))


@pytest.fixture
def home(model: StoredModel) -> Iterator[Home]:
    """Three devices in a row."""
    made = Home(model, (1, 3), share=1.0)
    yield made
    made.close()


def sent(worker: Worker, kind: type = SpanStep) -> int:
    """Messages of a kind that the client sent to a device."""
    found = [decode_message(frames, MAX_DATA_HEADER_BYTES).message for frames in worker.channel.sent]
    return sum(type(message) is kind for message in found)


def right(home: Home, prompt: int = 20) -> bool:
    found = logits_of(home.decoder, home.decoder.new_cache(), IDS, prompt)
    return found.tobytes() == logits_alone(home.model, IDS).tobytes()


@pytest.mark.parametrize("way", [straight, behind])
def test_tokens_go_straight_and_the_client_sends_to_the_first_alone(home: Home, way: Callable[..., None]) -> None:
    for worker in home.workers:
        worker.hands_on = way
    assert right(home)
    assert [worker.steps for worker in home.workers] == [11] * 3
    assert [sent(worker) for worker in home.workers] == [11, 1, 1], "all but the prompt, before the caches are open"
    assert [stage.direct for stage in home.chain.stages] == [0, 10, 10]
    assert home.chain.recheck is not None and home.chain.recheck.rows_equal == 3 * len(IDS)


@pytest.mark.parametrize("way", [straight, drops, swaps])
def test_a_pass_of_several_steps_goes_by_way_of_the_client(
    model: StoredModel, monkeypatch: pytest.MonkeyPatch, way: Callable[..., None]
) -> None:
    """Were one of them lost on its way, the next would be computed without it."""
    monkeypatch.setattr("node.spans.steps.STEP_ROWS", 4)
    home = Home(model, (1, 3))
    try:
        cache = home.decoder.new_cache()
        home.decoder.forward(IDS[:8], cache)
        home.decoder.forward(IDS[8:9], cache)
        home.workers[0].hands_on = way
        by_client = [sent(worker) for worker in home.workers]
        cache.truncate(7)  # the devices know more of it than that
        found = home.decoder.forward(IDS[7:24], cache)
        assert found.tobytes() == logits_alone(model, IDS[:24])[-1].tobytes()
        assert [sent(worker) - before for worker, before in zip(home.workers, by_client, strict=True)] == [5] * 3
    finally:
        home.close()


def test_who_reaches_nobody_is_asked_no_more(home: Home) -> None:
    home.workers[0].hands_on = keeps
    for number in range(3):
        assert right(home), number
    second = home.workers[1]
    assert home.chain.stages[1].direct == 0 and sent(second) == 33
    assert sent(second, Cancel) == MAX_FAILED, "the client takes the rows back at once"
    assert home.chain.stages[2].direct > 0, "the next two reach each other"


def test_what_gets_lost_is_sent_by_the_client(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOST_S", "SLOWER"):
        monkeypatch.setattr(f"node.spans.chain.{name}", 0.0)
    monkeypatch.setattr("node.spans.chain.TURN_S", 0.01)
    home.workers[0].hands_on = drops
    assert right(home)
    assert sent(home.workers[1]) == 11 and not home.told
    assert sent(home.workers[1], Cancel) == MAX_FAILED // LOST_WEIGHT


def test_a_device_that_gets_other_rows_than_the_client_blames_nobody(home: Home) -> None:
    """Nobody can tell which of the two is wrong; the client sends the rows itself from then on."""
    home.workers[0].hands_on = swaps
    assert right(home)
    home.workers[0].hands_on = straight
    assert all(worker.peer.status is PeerStatus.ACTIVE for worker in home.workers)
    assert sent(home.workers[1]) == 11 and sent(home.workers[1], Cancel) == 0
    assert home.chain.stages[1].direct == 0


def test_a_device_dies_in_the_middle_of_a_way(home: Home) -> None:
    home.workers[1].faults[5] = dies
    assert right(home)
    assert len(home.told) == 1 and not home.workers[1].channel.connected


def test_nothing_goes_straight_to_who_may_not_read(home: Home) -> None:
    cache = home.decoder.new_cache()
    home.decoder.forward(IDS[:20], cache)
    home.decoder.forward(IDS[20:21], cache)
    steps = home.workers[2].steps
    home.workers[2].may_read = False
    found = home.decoder.forward(IDS[21:22], cache)
    assert found.tobytes() == logits_alone(home.model, IDS[:22])[-1].tobytes()
    assert home.workers[2].steps == steps
