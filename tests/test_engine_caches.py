"""Which earlier answer a prompt may begin with: what is reused is not sent, and peers see that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from gateway_fakes import WAIT_S, Asked
from live_nodes import LOOPBACK
from made_parts import identity
from test_model_checkpoints import write_checkpoint
from test_model_decoder import FAMILIES

from node.config import NodeConfig
from node.engine import Engine, GenerationRequest
from node.engine.caches import KeptCaches
from node.engine.request import Completed, Prefilled
from node.model.cache import KVCache
from node.model.sampling import SamplingParams
from node.node import Node
from node.privacy import Privacy
from node.store.library import Library
from node.store.stored import StoredModel

PARAMS = SamplingParams(max_tokens=6, temperature=0.0, ignore_eos=True)
LONG = 60
"""Tokens of a first turn."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    return Library(tmp_path_factory.mktemp("models")).resolve("story")


def held(model: StoredModel, tokens: list[int]) -> KVCache:
    cache = KVCache(model.config, 200)
    cache.token_ids = list(tokens)
    return cache


def test_a_turn_takes_over_its_own_conversation_and_nothing_else(model: StoredModel) -> None:
    prompt, answer = list(range(40)), [90, 91, 92]
    for conversation, asked, fits in [
        ("mine", [*prompt, *answer, 5], True),
        ("mine", [*prompt, 7, 8], True),  # the answer was edited
        ("mine", [*prompt[:-1], 7, 8], False),  # another prompt that begins alike
        ("yours", [*prompt, *answer, 5], False),
        (None, [*prompt, *answer, 5], False),
    ]:
        caches = KeptCaches()
        caches.put(held(model, [*prompt, *answer]), "mine", len(prompt))
        assert (caches.take_turn(asked, conversation) is not None) is fits, (conversation, asked)
    caches = KeptCaches()
    caches.put(held(model, [*prompt, *answer]), None, len(prompt))
    assert caches.take_turn([*prompt, *answer], None) is None, "what is nobody's serves nobody"


class Asking:
    """A node that asks one peer in `strict`, and the rows that it sent for each prompt."""

    def __init__(self, engine: Engine, model: StoredModel) -> None:
        self._engine, self._model = engine, model
        self._count = 0

    def rows(self, prompt: list[int], conversation: str | None, privacy: Privacy = Privacy.STRICT) -> int:
        asked, self._count = Asked(), self._count + 1
        request = GenerationRequest(
            f"ask {self._count}", self._model, tuple(prompt), PARAMS, privacy, True, conversation=conversation
        )
        self._engine.submit(request, asked.events.put)
        ended = asked.finish()
        assert isinstance(ended, Completed) and ended.receipt.mode == privacy.value
        self.answer = asked.token_ids
        return max(event.total for event in asked.heard if isinstance(event, Prefilled))


@pytest.fixture
def worker(model: StoredModel) -> Iterator[Node]:
    with Node(NodeConfig(identity(1), LOOPBACK, threads=1), [model]) as worker:
        yield worker


def asking(stack: ExitStack, worker: Node, model: StoredModel, sends_all_rows: bool = False) -> Asking:
    config = NodeConfig(identity(2), None, (worker.addresses[0],), threads=1, sends_all_rows=sends_all_rows)
    client = stack.enter_context(Node(config, [model]))
    assert client.registry.wait_up(worker.peer_id, WAIT_S)
    engine = stack.enter_context(Engine(client, Library(model.path.parent)))
    return Asking(engine, model)


def test_rows_are_saved_within_a_conversation_alone(worker: Node, model: StoredModel) -> None:
    first = [1, *range(300, 300 + LONG)]
    with ExitStack() as stack:
        client = asking(stack, worker, model)
        assert client.rows(first, "a") == len(first)
        turn = [*first, *client.answer, 400, 401]
        assert client.rows(turn, "b") == len(turn), "another program that has the same text"
        assert client.rows([*first, 9, 9], None) == len(first) + 2, "somebody who says nothing of himself"
        assert client.rows(turn, "a") <= 4, "the next turn of the conversation"


def test_every_row_is_sent_where_the_user_wants_that(worker: Node, model: StoredModel) -> None:
    first = [1, *range(300, 300 + LONG)]
    with ExitStack() as stack:
        client = asking(stack, worker, model, sends_all_rows=True)
        client.rows(first, "a")
        turn = [*first, *client.answer, 400, 401]
        assert client.rows(turn, "a") == len(turn)
        local = client.rows(first, "a", Privacy.LOCAL)
        assert local == len(first)
        assert client.rows([*first, *client.answer, 5], "c", Privacy.LOCAL) <= 4, "nobody sees what stays here"


def test_a_text_that_may_grow_long_takes_over_nothing_of_a_short_one(tmp_path: Path) -> None:
    """Longrope: the keys of one are rotated by other factors than those of the other."""
    library = Library(tmp_path / "models")
    model = library.resolve(write_checkpoint(tmp_path / "phi3", FAMILIES["phi3"]))
    original = model.config.rope.original_context_length
    first = list(range(5, 5 + original - 2 - PARAMS.max_tokens))
    with Node(NodeConfig(identity(2), None, threads=1), [model]) as node, Engine(node, library) as engine:
        client = Asking(engine, model)
        assert client.rows(first, None, Privacy.LOCAL) == len(first)
        assert client.rows([*first, 60], None, Privacy.LOCAL) == 1
        assert client.rows([*first, 60, 61, 62], None, Privacy.LOCAL) == len(first) + 3
