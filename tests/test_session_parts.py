"""A pass that several texts share, computed with peers: what cannot be computed of one costs the others nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from live_nodes import LOOPBACK, WAIT_S
from made_parts import KERNELS, identity
from puppets import write_puppet
from safetensors.numpy import load_file, save_file

from node.config import NodeConfig
from node.model.decoder import Part, PartError
from node.node import Node
from node.privacy import Privacy
from node.session.config import SessionConfig
from node.session.session import Session
from node.store.importer import import_checkpoint
from node.store.stored import StoredModel

A, B, OVERFLOWS = b"abn"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    """After `n`, the gated product of the first layer is beyond float32: in the middle of a pass."""
    folder = tmp_path_factory.mktemp("store")
    checkpoint = write_puppet(folder / "checkpoint", {A: B, B: A})
    tensors = load_file(checkpoint / "model.safetensors")
    for name in ("gate_proj", "up_proj"):
        tensors[f"model.layers.0.mlp.{name}.weight"][0, OVERFLOWS] = 1e20
    save_file(tensors, checkpoint / "model.safetensors")
    return StoredModel(import_checkpoint(checkpoint, Path(folder) / "models").path)


@pytest.fixture
def client(model: StoredModel) -> Iterator[Node]:
    """It was told of two that serve the model."""
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Node(NodeConfig(identity(index), LOOPBACK, threads=1), [model], KERNELS))
            for index in (1, 2)
        ]
        addresses = tuple(worker.addresses[0] for worker in workers)
        client = stack.enter_context(Node(NodeConfig(identity(3), LOOPBACK, addresses, threads=1), [model], KERNELS))
        for worker in workers:
            assert client.registry.wait_up(worker.peer_id, WAIT_S)
        yield client


@pytest.mark.parametrize("mode", [Privacy.LOCAL, Privacy.SPLIT, Privacy.STRICT])
def test_the_others_are_computed_without_it(client: Node, model: StoredModel, mode: Privacy) -> None:
    texts = [[A, B, A], [B]]
    with Session(client, model, SessionConfig(Privacy.LOCAL)) as session:
        expected = [session.decoder.forward(text, session.decoder.new_cache()) for text in texts]
    with Session(client, model, SessionConfig(mode)) as session:
        decoder = session.decoder
        caches = [decoder.new_cache() for _ in texts]
        good = [Part(text, cache) for text, cache in zip(texts, caches, strict=True)]
        bad = Part([A, OVERFLOWS], decoder.new_cache())
        for _ in range(3):
            with pytest.raises(PartError) as failed:
                decoder.forward_parts([good[0], bad, good[1]], [True] * 3)
            assert failed.value.index == 1
            assert [part.cache.length for part in (*good, bad)] == [0, 0, 0], "nothing counts as held"
        for wanted, got in zip(expected, decoder.forward_parts(good, [True] * 2), strict=True):
            assert got is not None and np.array_equal(wanted, got)
        assert any(peer.chunks for peer in session.peers) == (mode is not Privacy.LOCAL)
        with pytest.raises(PartError):
            decoder.forward([OVERFLOWS], decoder.new_cache())
