"""What another device computes again, for a client that does not hold the layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from made_parts import KERNELS
from span_home import (
    HARMLESS,
    IDS,
    LAYERS,
    VISIBLE_LIES,
    Home,
    Worker,
    lies,
    logits_alone,
    logits_of,
    not_finite,
    other_rows,
)
from test_model_checkpoints import write_checkpoint

from node.execution.interrupt import PassCancelledError
from node.execution.peer import PeerStatus
from node.kernels import has_same_floats
from node.spans.chain import SpanLieError
from node.spans.recheck import Recheck
from node.store.library import Library
from node.store.stored import StoredModel
from protocol.spans.messages import SpanStep

pytestmark = pytest.mark.skipif(not has_same_floats(KERNELS), reason="the C kernels are not built")
NEARLY_ALWAYS = 0.999999
"""A share with which everything is followed, and compared beside the answer."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    root = tmp_path_factory.mktemp("witness")
    return Library(root / "models").resolve(write_checkpoint(root / "made", {"num_hidden_layers": LAYERS}))


@pytest.fixture
def open_home(model: StoredModel) -> Iterator[Callable[[float], tuple[Home, Worker, Recheck]]]:
    homes: list[Home] = []

    def opened(share: float) -> tuple[Home, Worker, Recheck]:
        """Two devices that compute half each, and a third that computes it again."""
        homes.append(Home(model, [2], share))
        witness, recheck = homes[-1].by_witness(), homes[-1].chain.recheck
        assert recheck is not None
        return homes[-1], witness, recheck

    yield opened
    for home in homes:
        home.close()


def silent(worker: Worker, message_id: int, step: SpanStep) -> bool:
    return True


@pytest.mark.parametrize("share", [1.0, NEARLY_ALWAYS])
def test_all_that_honest_devices_return_is_the_same_elsewhere(
    model: StoredModel, open_home: Callable[[float], tuple[Home, Worker, Recheck]], share: float
) -> None:
    home, witness, recheck = open_home(share)
    cache = home.decoder.new_cache()
    found = logits_of(home.decoder, cache, IDS, 20)
    recheck.finish()
    home.chain.look_for_lies()
    assert found.tobytes() == logits_alone(model, IDS).tobytes()
    assert recheck.rows_elsewhere == recheck.rows_equal == recheck.rows_seen == 2 * len(IDS)
    assert witness.steps and witness.peer.status is PeerStatus.ACTIVE


@pytest.mark.parametrize("liar", ["device", "witness", "witness, not finite"])
def test_where_two_devices_differ_neither_is_used_any_more(
    model: StoredModel, open_home: Callable[[float], tuple[Home, Worker, Recheck]], liar: str
) -> None:
    """Nothing here can tell which of them is wrong."""
    home, witness, recheck = open_home(1.0)
    device = home.workers[1]
    (device if liar == "device" else witness).faults[4] = lies(not_finite if "finite" in liar else other_rows)
    found = logits_of(home.decoder, home.decoder.new_cache(), IDS, 20)
    assert found.tobytes() == logits_alone(model, IDS).tobytes()
    assert device.peer.status is witness.peer.status is PeerStatus.DOUBTED
    assert (recheck.rows_differ, recheck.rows_wrong) == (1, 0) and "cannot tell which" in home.told[0]
    assert device.peer.rejected == witness.peer.rejected == 0, "nobody is banned"
    steps = device.steps
    home.decoder.forward([5], home.decoder.new_cache())
    assert device.steps == steps


def test_a_difference_that_is_found_later_names_both(
    model: StoredModel, open_home: Callable[[float], tuple[Home, Worker, Recheck]]
) -> None:
    home, witness, recheck = open_home(NEARLY_ALWAYS)
    home.workers[0].faults[3] = lies(other_rows)  # the second token: position 21
    cache = home.decoder.new_cache()
    with pytest.raises(SpanLieError) as caught:
        logits_of(home.decoder, cache, IDS, 20)
        recheck.finish()
        home.chain.look_for_lies()
    assert dict(caught.value.wrong) == {cache: 21}
    assert all(peer.called in str(caught.value) for peer in (home.workers[0].peer, witness.peer))
    assert home.workers[0].peer.status is witness.peer.status is PeerStatus.DOUBTED
    cache.truncate(21)
    recheck.finish()
    rest = np.concatenate([home.decoder.forward([token_id], cache)[None] for token_id in IDS[21:]])
    assert rest.tobytes() == logits_alone(model, IDS)[21:].tobytes()


WITNESS_FAULTS = {**HARMLESS, **{name: fault for name, fault in VISIBLE_LIES.items() if name != "not finite"}}


@pytest.mark.parametrize("fault", WITNESS_FAULTS)
@pytest.mark.parametrize("share", [1.0, NEARLY_ALWAYS])
def test_a_witness_that_fails_is_no_proof_of_anything(
    model: StoredModel, open_home: Callable[[float], tuple[Home, Worker, Recheck]], fault: str, share: float
) -> None:
    home, witness, recheck = open_home(share)
    witness.faults[3] = WITNESS_FAULTS[fault]
    cache = home.decoder.new_cache()
    found = logits_of(home.decoder, cache, IDS, 20)
    recheck.finish()
    home.chain.look_for_lies()
    assert found.tobytes() == logits_alone(model, IDS).tobytes()
    assert recheck.rows_differ == 0 and not home.told
    assert all(worker.peer.status is PeerStatus.ACTIVE for worker in (*home.workers, witness))
    if fault != "answers twice":
        assert 0 < recheck.rows_equal < recheck.rows_seen, "what was not computed again does not count"


@pytest.mark.parametrize("at", [0, 1])
def test_a_pass_that_was_cancelled_while_its_rows_were_computed_again_can_be_repeated(
    model: StoredModel, open_home: Callable[[float], tuple[Home, Worker, Recheck]], at: int
) -> None:
    home, _, recheck = open_home(1.0)
    cache, alone = home.decoder.new_cache(), logits_alone(model, IDS)
    for start, stop in ((0, 20), (20, 25)):
        if at == (start > 0):
            home.cancelled = True
            with pytest.raises(PassCancelledError):
                home.decoder.forward(IDS[start:stop], cache, all_logits=True)
            cache.truncate(start)
        found = home.decoder.forward(IDS[start:stop], cache, all_logits=True)
        assert found.tobytes() == alone[start:stop].tobytes()
    assert recheck.rows_equal == recheck.rows_elsewhere >= 2 * 25


def test_every_request_whose_rows_a_witness_reads_names_it(
    open_home: Callable[[float], tuple[Home, Worker, Recheck]],
) -> None:
    """Receipts count steps of peers from the beginning of a request's passes to their end."""
    home, witness, _ = open_home(NEARLY_ALWAYS)
    witness.faults = dict.fromkeys(range(1, 99), silent)
    cache, seen = home.decoder.new_cache(), [0]
    for start in (0, 5, 10):
        home.decoder.forward(IDS[start : start + 5], cache)
        seen.append(witness.peer.chunks)
    assert seen == sorted(set(seen)), "in each, though it has computed nothing yet"
    assert witness.peer in [device.peer for device in home.chain.devices]


def test_a_session_that_ends_waits_for_no_witness(
    open_home: Callable[[float], tuple[Home, Worker, Recheck]],
) -> None:
    home, witness, recheck = open_home(NEARLY_ALWAYS)
    witness.faults = dict.fromkeys(range(1, 99), silent)
    logits_of(home.decoder, home.decoder.new_cache(), IDS, 20)
    recheck.close()
    assert recheck._thread is None and recheck.rows_equal == 0


def test_a_device_is_no_witness_of_itself(
    model: StoredModel, open_home: Callable[[float], tuple[Home, Worker, Recheck]]
) -> None:
    """The layers of a device that is lost may come to the one that computed them again."""
    home, _, recheck = open_home(1.0)
    home.workers[0].faults[3] = HARMLESS["dies"]
    home.workers[1].faults[4] = HARMLESS["dies"]
    cache = home.decoder.new_cache()
    assert logits_of(home.decoder, cache, IDS, 20).tobytes() == logits_alone(model, IDS).tobytes()
    assert len(home.told) >= 2 and home.workers[2].steps and recheck.rows_elsewhere < recheck.rows_seen
