"""What answers leave behind: little, and no more the longer a node runs."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from gateway_fakes import WAIT_S, Asked, Serving, serving

from node.engine import runner
from node.engine.caches import KEPT_CACHES, KeptCaches
from node.engine.request import Completed, GenerationRequest
from node.model.cache import KVCache
from node.model.sampling import SamplingParams
from node.privacy import Privacy


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("engine")) as node:
        yield node


def answered(node: Serving, name: str, prompt: list[int]) -> None:
    asked = Asked()
    params = SamplingParams(max_tokens=2, temperature=0.0, ignore_eos=True)
    request = GenerationRequest(name, node.model, prompt, params, Privacy.LOCAL, True)
    node.engine.submit(request, asked.events.put)
    assert isinstance(asked.finish(), Completed)


def test_no_cache_outlives_its_answer_but_the_few_that_are_kept(
    node: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the collector of cycles: a request that has ended is in none."""
    alive: weakref.WeakSet[KVCache] = weakref.WeakSet()
    made = KVCache.__init__

    def noted(cache: KVCache, *given: Any) -> None:
        made(cache, *given)
        alive.add(cache)

    monkeypatch.setattr(KVCache, "__init__", noted)
    gc.collect()
    gc.disable()
    try:
        for index in range(3 * KEPT_CACHES):
            answered(node, f"memory {index}", [1, 40 + index, 60 + 3 * index])
        deadline = time.monotonic() + WAIT_S
        while len(alive) > KEPT_CACHES:
            assert time.monotonic() < deadline, f"{len(alive)} caches are alive"
            time.sleep(0.01)
    finally:
        gc.enable()


def test_a_runner_at_rest_gives_memory_back_once(node: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    monkeypatch.setattr(runner, "REST_AFTER_S", 0.05)
    monkeypatch.setattr(runner, "give_back", lambda: given.append(time.monotonic()))
    answered(node, "rest", [1, 2, 3])
    deadline = time.monotonic() + WAIT_S
    while not given:
        assert time.monotonic() < deadline, "it rests"
        time.sleep(0.01)
    answered(node, "rest again", [1, 2, 3])
    while len(given) < 2:
        assert time.monotonic() < deadline, "it rests again"
        time.sleep(0.01)
    assert len(given) == 2


def test_kept_caches_are_bounded_in_number_and_bytes(node: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    def cache(tokens: int) -> KVCache:
        made = KVCache(node.model.config, tokens)
        made.reserve(tokens)
        made.commit(list(range(tokens)))
        return made

    kept, size = KeptCaches(), cache(8).num_bytes
    assert size > 0
    for _ in range(2 * KEPT_CACHES):
        kept.put(cache(8))
    assert kept.num_tokens == 8 * KEPT_CACHES
    monkeypatch.setattr("node.engine.caches.MAX_KEPT_BYTES", 2 * size)
    kept.put(cache(8))
    assert kept.num_tokens == 16
    kept.put(cache(64))
    assert kept.num_tokens == 0, "one that is larger than all that may be kept is not kept"
