"""Weights between nodes in one process, over real sockets: fetched, served on, resumed; and liars left out."""

from __future__ import annotations

import itertools
import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from test_model_checkpoints import write_byte_tokenizer, write_checkpoint
from waiting import until

from node.config import NodeConfig
from node.errors import TransportError
from node.gateway.live.state import partial_statuses
from node.kernels import select_kernels
from node.kernels.interface import Kernels
from node.node import Node
from node.store.importer import import_checkpoint
from node.store.partial import PartialModel, partial_path
from node.store.stored import StoredModel
from node.transfer.budget import MemoryBudget
from node.transfer.jobs import Job, JobState
from node.transfer.sources import Sources
from protocol.identity import Identity
from protocol.limits import PIECE_BYTES
from protocol.multiaddr import parse_multiaddr
from scripts.harness.hostile_blobs import spoil_blobs

LOOPBACK = parse_multiaddr("/ip4/127.0.0.1/tcp/0")
SIZES = {
    "hidden_size": 512,
    "intermediate_size": 2304,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "num_hidden_layers": 3,
    "vocab_size": 300,
}
"""`gate_up` and `down` of a layer have several pieces, `o` has one."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one model."""
    folder = tmp_path_factory.mktemp("source")
    checkpoint = write_checkpoint(folder / "checkpoint", SIZES)
    write_byte_tokenizer(checkpoint)
    import_checkpoint(checkpoint, folder / "models")
    return folder / "models"


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    return select_kernels(1)


class Park:
    """Nodes that end with the test."""

    def __init__(self, source: Path, folder: Path, kernels: Kernels, stack: ExitStack) -> None:
        self.path = next(path for path in source.iterdir() if len(path.name) == 64)
        self.model_id = self.path.name
        self._folder, self._kernels, self._stack = folder, kernels, stack
        self._count = 0

    def node(self, others: list[Node], whole: bool = False, data: str | None = None, member: bool = False) -> Node:
        self._count += 1
        models_dir = self._folder / (data or f"node{self._count}")
        seed = bytes([self._count]) * 32
        addresses = tuple(other.addresses[0] for other in others)
        state = models_dir / "state" if member else None
        if state is not None:
            state.mkdir(parents=True)
        config = NodeConfig(Identity.from_seed(seed), LOOPBACK, addresses, 1, models_dir, state=state, on_lan=False)
        node = Node(config, [StoredModel(self.path)] if whole else [], self._kernels)
        return self._stack.enter_context(node)

    def models_dir(self, node: Node) -> Path:
        assert node.config.models_dir is not None
        return node.config.models_dir


@pytest.fixture
def park(source: Path, tmp_path: Path, kernels: Kernels) -> Iterator[Park]:
    with ExitStack() as stack:
        yield Park(source, tmp_path, kernels, stack)


def ended(job: Job, limit_s: float = 30.0) -> Job:
    assert job.ended.wait(limit_s), job
    return job


def files_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_whole_model_is_fetched_byte_for_byte_from_two_and_served_on(park: Park) -> None:
    first, second = park.node([], whole=True), park.node([], whole=True)
    third = park.node([first, second])
    job = ended(third.transfers.pull(park.model_id))
    assert job.state is JobState.DONE, job
    assert files_of(park.models_dir(third) / park.model_id) == files_of(park.path)
    assert job.done_bytes == job.total_bytes == sum(map(len, files_of(park.path).values())) - manifest_bytes(park)
    assert third.hosted.layers[0].ranges == ((0, 4),), "three layers and the head"
    fourth = park.node([third])
    assert ended(fourth.transfers.pull(park.model_id)).state is JobState.DONE


def test_a_whole_model_is_fetched_instead_of_layers_of_it(park: Park) -> None:
    """Both write the same files, and whoever is ready first would move them from under the other."""
    alone = park.node([])
    layers = alone.transfers.take_layers(park.model_id, MemoryBudget(1 << 30))  # nobody is there yet
    whole = alone.transfers.pull(park.model_id)
    ended(layers)
    park.node([alone], whole=True)
    assert ended(whole).state is JobState.DONE, whole
    assert layers.state is JobState.CANCELLED
    assert files_of(park.models_dir(alone) / park.model_id) == files_of(park.path)


def manifest_bytes(park: Park) -> int:
    return (park.path / "manifest.cbor").stat().st_size


def test_layers_are_taken_as_far_as_the_memory_allows_and_served_one_by_one(park: Park) -> None:
    first = park.node([], whole=True)
    second = park.node([first])
    seen: list[int] = []
    second.hosted.on_change = lambda: seen.append(len(second.hosted.held(bytes.fromhex(park.model_id))))
    units = StoredModel(park.path).units
    layer = sum(ref.num_bytes for ref in units if ref.layer == 0)
    head = next(ref.num_bytes for ref in units if ref.layer is None)
    assert head < layer, "there is room for it beside two layers"
    job = ended(second.transfers.take_layers(park.model_id, MemoryBudget(2 * layer + head)))
    assert job.state is JobState.DONE, job
    steps = sorted(set(seen))
    assert steps[0] == 0 and steps[-1] == 9, "first the manifest, in the end two layers and the head"
    assert {after - before for before, after in itertools.pairwise(steps)} <= {1, 4}, "one after the other"
    assert job.total_bytes == job.done_bytes == job.fetched_bytes == 2 * layer + head
    (hosted,) = second.hosted.layers
    assert sum(end - start for start, end in hosted.ranges) == 3
    assert not (park.models_dir(second) / park.model_id).exists(), "a part is no model"
    (shown,) = partial_statuses(second)
    assert (shown["state"], shown["layers"], shown["coverage"]) == ("partial", 3, "complete")
    first.__exit__()
    until(lambda: partial_statuses(second)[0]["coverage"] != "complete", "it knows that layers are missing")
    (missing,) = {0, 1, 2} - {layer for start, end in hosted.ranges for layer in range(start, end)}
    assert partial_statuses(second)[0]["coverage"] == f"layer {missing} is missing"


def test_members_hear_of_layers_that_came_after_the_hello(park: Park) -> None:
    """They are linked before anything is fetched, and know the units by their hashes once they know the manifest."""
    first = park.node([], whole=True, member=True)
    watcher = park.node([first], member=True)
    model_id = bytes.fromhex(park.model_id)
    watcher.hosted.learn(model_id, StoredModel(park.path).manifest)
    second = park.node([first], member=True)
    until(lambda: any(peer.peer_id == second.peer_id for peer in watcher.registry.usable()), "the newcomer is seen")
    assert not next(peer for peer in watcher.registry.usable() if peer.peer_id == second.peer_id).serves(model_id)
    assert ended(second.transfers.take_layers(park.model_id, MemoryBudget(1 << 40))).state is JobState.DONE
    held = {ref.sha256 for ref in StoredModel(park.path).units}
    until(
        lambda: any(
            peer.peer_id == second.peer_id and peer.hosts(model_id) == held for peer in watcher.registry.usable()
        ),
        "its layers are known",
    )


def test_memory_for_no_layer_says_how_much_it_takes(park: Park) -> None:
    first = park.node([], whole=True)
    second = park.node([first])
    job = ended(second.transfers.take_layers(park.model_id, MemoryBudget(1 << 10)))
    assert job.state is JobState.FAILED and job.error is not None
    assert "--memory" in job.error and "MiB" in job.error


def test_a_model_that_nobody_has_fails_and_says_so(park: Park) -> None:
    alone = park.node([park.node([], whole=True)])
    job = ended(alone.transfers.pull("ab" * 32, patience_s=1.0))
    assert job.state is JobState.FAILED and job.error is not None and "start a node" in job.error


def test_a_break_in_the_middle_costs_only_what_was_not_there(park: Park) -> None:
    """The only source goes at a third of the way; another life of the same directory goes on where it was."""
    first = park.node([], whole=True)
    second = park.node([first], data="same")
    job = second.transfers.pull(park.model_id)
    until(lambda: job.fetched_bytes > 3 * PIECE_BYTES, "pieces come")
    second.transfers.cancel(job.id)
    assert ended(job).state is JobState.CANCELLED
    kept = job.fetched_bytes
    again = park.node([first], data="same")
    other = ended(again.transfers.pull(park.model_id))
    assert other.state is JobState.DONE, other
    assert other.fetched_bytes + kept == other.total_bytes, "nothing twice"
    assert files_of(park.models_dir(again) / park.model_id) == files_of(park.path)


@pytest.mark.parametrize("lie", ["piece", "outline"])
def test_a_liar_is_kept_out_and_the_rest_comes_from_elsewhere(park: Park, lie: str) -> None:
    honest, liar = park.node([], whole=True), park.node([], whole=True)
    spoil_blobs(liar, f"false-{lie}", 0.0)
    third = park.node([liar, honest])
    until(lambda: len(third.registry.usable()) == 2, "both are seen")
    job = ended(third.transfers.pull(park.model_id))
    assert job.state is JobState.DONE, job
    assert files_of(park.models_dir(third) / park.model_id) == files_of(park.path)
    assert third.access.is_banned(liar.config.identity.curve_public_key)
    assert not third.access.is_banned(honest.config.identity.curve_public_key)


def test_what_an_earlier_life_left_is_checked_before_it_is_served(park: Park) -> None:
    first = park.node([], whole=True)
    second = park.node([first], data="same")
    assert ended(second.transfers.take_layers(park.model_id, MemoryBudget(1 << 40))).state is JobState.DONE
    unit = next((partial_path(park.models_dir(second), park.model_id) / "units").glob("*.w8"))
    content = bytearray(unit.read_bytes())
    content[5] ^= 1
    unit.write_bytes(content)
    third = park.node([first], data="same")
    job = ended(third.transfers.take_layers(park.model_id, MemoryBudget(1 << 40)))
    assert job.state is JobState.DONE and job.fetched_bytes == len(content), "that one alone is fetched again"
    assert PartialModel.find(park.models_dir(third), park.model_id) is not None


def test_nothing_is_fetched_where_libzmq_would_abort() -> None:
    """Found by a soak: a context that finds no descriptor for its threads aborts the process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)  # the lowest number that is free
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 4, hard))
    try:
        with pytest.raises(TransportError, match="try again"):
            Sources(None)  # type: ignore[arg-type]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
