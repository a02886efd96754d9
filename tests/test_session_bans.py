"""Sessions and bans: whoever is kept out gets no rows of new passes, whichever session or person found it out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from live_nodes import LOOPBACK, WAIT_S
from made_parts import KERNELS, identity
from test_model_checkpoints import write_byte_tokenizer, write_checkpoint

from node.model.generate import GeneratedToken
from node.model.sampling import SamplingParams
from node.node import Node, NodeConfig
from node.privacy import Privacy
from node.session.receipt import Receipt
from node.session.session import Session, SessionConfig
from node.store.importer import import_checkpoint
from node.store.stored import StoredModel

PROMPT = [5, 6, 7]
PARAMS = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    folder = tmp_path_factory.mktemp("store")
    checkpoint = write_checkpoint(folder / "checkpoint", {})
    write_byte_tokenizer(checkpoint)
    return StoredModel(import_checkpoint(checkpoint, folder / "models").path)


@pytest.fixture
def nodes(model: StoredModel) -> Iterator[list[Node]]:
    """Two that serve the model, and a client that was told of them."""
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Node(NodeConfig(identity(index), LOOPBACK, threads=1), [model], KERNELS))
            for index in (1, 2)
        ]
        addresses = tuple(worker.addresses[0] for worker in workers)
        client = stack.enter_context(Node(NodeConfig(identity(3), LOOPBACK, addresses, threads=1), [model], KERNELS))
        for worker in workers:
            assert client.registry.wait_up(worker.peer_id, WAIT_S)
        yield [*workers, client]


def tokens_of(events: Iterator[GeneratedToken | Receipt], count: int) -> list[int]:
    return [event.id for _, event in zip(range(count), events, strict=False) if isinstance(event, GeneratedToken)]


@pytest.mark.parametrize("mode", [Privacy.SPLIT, Privacy.STRICT])
def test_a_peer_that_is_banned_in_the_middle_gets_no_more_rows(
    nodes: list[Node], model: StoredModel, mode: Privacy
) -> None:
    *workers, client = nodes
    with Session(client, model, SessionConfig(Privacy.LOCAL)) as session:
        expected = tokens_of(session.answer(PROMPT, PARAMS), 99)
    with Session(client, model, SessionConfig(mode)) as session:
        events = session.answer(PROMPT, PARAMS)
        tokens = tokens_of(events, 4)
        assert any(peer.chunks for peer in session.peers), "it is computed with the peers"
        for worker in workers[: 1 if mode is Privacy.SPLIT else 2]:
            client.ban(worker.peer_id, "another session caught it")
        before = [peer.chunks for peer in session.peers]
        tokens += tokens_of(events, 99)
        assert [peer.chunks for peer in session.peers] == before
    assert tokens == expected and len(tokens) == 12
