"""A long prompt over real peers: in as few passes as it fits, and its asker hears how far it is."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from node.config import NodeConfig
from node.engine import Engine, batch, recorder
from node.engine.request import Completed, Prefilled
from node.model.sampling import SamplingParams
from node.node import Node
from node.paths import DataDir
from node.privacy import Privacy
from node.store.library import Library
from node.store.stored import StoredModel
from protocol.identity import Identity
from protocol.link.admission import SwarmKey
from protocol.multiaddr import parse_multiaddr
from scripts.harness.asking import request_of
from scripts.harness.swarm import Swarm

pytestmark = pytest.mark.swarm

ROWS = 250
PARAMS = SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True)


@pytest.fixture(scope="module")
def asking() -> Iterator[tuple[Engine, StoredModel]]:
    with Swarm() as swarm:
        swarm.start(2)
        addresses = tuple(parse_multiaddr(node.address) for node in swarm.nodes)
        model = Library(DataDir.open(swarm.folder / "client").models).resolve("story")
        identity = Identity.from_seed(secrets.token_bytes(32))
        config = NodeConfig(identity, None, addresses, threads=1, swarm_key=SwarmKey.from_hex(swarm.key))
        with Node(config, [model]) as node:
            node.registry.wait_settled([str(address) for address in addresses], 2, 20)
            with Engine(node, Library(model.path.parent)) as engine:
                yield engine, model


def heard(engine: Engine, model: StoredModel, first: int, privacy: Privacy) -> list[Prefilled]:
    """What is said of a prompt that begins with another token each time, so that nothing of it is known."""
    prompt = [first, *model.tokenizer().encode("One day a fox met a bird and said " * ROWS)[: ROWS - 1]]
    events = list(engine.ask(request_of(model, prompt, PARAMS, privacy)))
    completed = events[-1]
    assert isinstance(completed, Completed) and completed.receipt.mode == privacy.value
    return [event for event in events if isinstance(event, Prefilled)]


def test_peers_get_a_prompt_whole_however_slow_they_were(
    asking: tuple[Engine, StoredModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In short passes it would pay every round trip again, and few rows do not go in waves."""
    monkeypatch.setattr(batch, "ALONE_TARGET_S", 1e-6)
    monkeypatch.setattr(recorder, "REPORT_S", 1e6)
    for number in range(2):  # before the first, no pass is measured
        assert heard(*asking, 10 + number, Privacy.SPLIT) == [Prefilled(ROWS, ROWS)]
    of_this_device = [heard(*asking, 20 + number, Privacy.LOCAL) for number in range(2)]
    assert len(of_this_device[1]) == -(-ROWS // batch.MIN_ALONE_ROWS), "a short pass costs nothing here"


@pytest.mark.parametrize("privacy", [Privacy.LOCAL, Privacy.SPLIT])
def test_within_a_pass_its_asker_hears_how_far_it_is(
    asking: tuple[Engine, StoredModel], privacy: Privacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "ALONE_TARGET_S", 1e6)
    monkeypatch.setattr(recorder, "REPORT_S", 0.0)
    events = heard(*asking, 30, privacy)
    done = [event.done for event in events]
    assert done == sorted(done) and done[-1] == ROWS and {event.total for event in events} == {ROWS}
    assert len(set(done)) >= asking[1].config.num_layers, "once a layer at least"
