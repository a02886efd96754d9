"""Sessions and bans: whoever is kept out gets no rows of new passes, whichever session or person found it out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from live_nodes import LOOPBACK, WAIT_S
from made_parts import KERNELS, identity
from test_model_checkpoints import write_byte_tokenizer, write_checkpoint
from waiting import until

from node.config import NodeConfig
from node.engine import Engine
from node.engine.request import Event, Token
from node.guards.book import read_book
from node.model.sampling import SamplingParams
from node.node import Node
from node.privacy import Privacy
from node.serving.worker import LinearWorker, Parts
from node.session.config import SessionConfig
from node.store.importer import import_checkpoint
from node.store.library import Library
from node.store.stored import StoredModel
from protocol.linear.field import Elements, P
from protocol.linear.messages import Linear, LinearResult
from protocol.linear.quick import ShareHeader
from protocol.linear.verification import result_digest
from protocol.work import WorkRequest
from scripts.harness.asking import answer, request_of

PROMPT = [5, 6, 7]
PARAMS = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)


class LyingWorker(LinearWorker):
    """Computes what it is asked, and says one more in one place."""

    def product(self, share: ShareHeader, rows: Elements, most_s: float) -> None:
        """None: every answer is one of `parts`."""

    def parts(self, request: WorkRequest) -> Parts:
        answer = yield from super().parts(request)
        if not isinstance(answer, LinearResult) or not isinstance(request, Linear):
            return answer
        rows = answer.rows.copy()
        rows[0, 0] = (int(rows[0, 0]) + 1) % P
        return LinearResult(result_digest(request.binding, rows), 1, rows)


class Liar(Node):
    """A node whose every result is wrong, with a right digest."""

    def make_worker(self) -> LinearWorker:
        return LyingWorker(self.kernels, self.hosted.weights_of, self.hosted.row_norm_of)


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


@pytest.mark.parametrize("mode", [Privacy.SPLIT, Privacy.STRICT])
def test_a_peer_that_is_banned_in_the_middle_gets_no_more_rows(
    nodes: list[Node], model: StoredModel, mode: Privacy
) -> None:
    *workers, client = nodes
    with Engine(client, Library(model.path.parent), SessionConfig()) as engine:
        expected, _receipt = answer(engine, model, PROMPT, PARAMS, Privacy.LOCAL)
        tokens, chunks = [], []
        banned = workers[: 1 if mode is Privacy.SPLIT else 2]

        def listen(event: Event) -> None:
            """In the engine's thread, between two passes: what was sent until now is settled."""
            if not isinstance(event, Token):
                return
            tokens.append(event.id)
            (session,) = [
                runner._session
                for runner in engine._runners.values()
                if runner.session and runner.session.mode is mode
            ]
            assert session is not None
            chunks.append([peer.chunks for peer in session.peers])
            if len(tokens) == 4:
                for worker in banned:
                    client.ban(worker.peer_id, "another session caught it")

        request = request_of(model, PROMPT, PARAMS, mode)
        engine.submit(request, listen)
        until(lambda: not engine.requests(), "it is answered")
    assert any(chunks[3]), "it is computed with the peers"
    assert chunks[-1] == chunks[3]
    assert tokens == expected and len(tokens) == 12


def test_who_lied_is_kept_out_for_a_day_and_never_becomes_a_guard(model: StoredModel, tmp_path: Path) -> None:
    with ExitStack() as stack:
        liar = stack.enter_context(Liar(NodeConfig(identity(1), LOOPBACK, threads=1), [model], KERNELS))
        config = NodeConfig(
            identity(3), LOOPBACK, (liar.addresses[0],), threads=1, guards_path=tmp_path / "guards.json"
        )
        client = stack.enter_context(Node(config, [model], KERNELS))
        assert client.registry.wait_up(liar.peer_id, WAIT_S)
        engine = stack.enter_context(Engine(client, Library(model.path.parent), SessionConfig()))
        expected, _receipt = answer(engine, model, PROMPT, PARAMS, Privacy.LOCAL)
        tokens, receipt = answer(engine, model, PROMPT, PARAMS, Privacy.STRICT)
        assert tokens == expected and receipt.chunks.rejected == 1 and receipt.chunks.verified == 0
        assert [entry.peer_id for entry in client.access.entries()] == [liar.peer_id]
        entry = client.access.entries()[0]
        assert entry.until is not None
        assert 23 * 3600 < entry.until - time.time() <= 24 * 3600
        until(lambda: not client.registry.usable(), "its links have ended")
        book = read_book(tmp_path / "guards.json")
        assert book is not None and book.caught == {liar.peer_id}
