"""Requests side by side: whose rows go next, and that company never shows in a text."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from gateway_fakes import Asked, Serving, serving
from hypothesis import given, settings
from hypothesis import strategies as st

from node.engine.batch import MIN_BLOCK_ROWS, PASS_TARGET_S, PassPacer, compose
from node.engine.engine import DuplicateRequestError
from node.engine.request import Completed, Failed, Prefilled, Queued, Started, Token
from node.errors import PromptError
from node.model.decoder import BLOCK_ROWS, Decoder, Part
from node.model.linear import LocalLinear
from node.model.sampling import SamplingParams
from node.privacy import Privacy
from node.session.receipt import Receipt

relaxed = settings(deadline=None, max_examples=25)
LONG = SamplingParams(max_tokens=60, temperature=0.9, seed=5, ignore_eos=True)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("engine")) as node:
        yield node


# --- who is next


@given(
    st.lists(st.one_of(st.just(1), st.integers(1, 2000)), min_size=1, max_size=16),
    st.integers(16, 512),
    st.integers(16, 512),
)
@settings(deadline=None)
def test_a_pass_has_a_row_of_every_stream_and_prompts_share_the_rest(
    pending: list[int], alone: int, beside: int
) -> None:
    rows = compose(pending, alone, beside)
    assert all(0 <= row <= count for row, count in zip(rows, pending, strict=True))
    assert 0 < sum(rows) <= BLOCK_ROWS
    streams = [row for row, count in zip(rows, pending, strict=True) if count == 1]
    prompts = [row for row, count in zip(rows, pending, strict=True) if count > 1]
    assert all(row == 1 for row in streams), "nobody who streams is left out"
    if streams:
        assert sum(rows) <= max(beside, len(streams) + 1)
    room = max(1, min(BLOCK_ROWS, beside if streams else alone) - len(streams))
    waiting = [(count, row) for row, count in zip(rows, pending, strict=True) if count > 1]
    if any(row < count for count, row in waiting):
        assert sum(prompts) == room, "no room is left unused"
    if waiting:
        count, row = waiting[0]
        assert row >= min(count, max(1, room // 4)), "the oldest always advances"
    others = sorted(waiting[1:], key=lambda each: (each[0], -each[1]))
    for (short, of_short), (_long, of_long) in pairwise(others):
        assert of_short == short or of_long == 0, "the short ones first"


def test_prompts_beside_streams_get_as_many_rows_as_fit_the_target() -> None:
    pacer = PassPacer()
    assert pacer.rows_beside >= MIN_BLOCK_ROWS
    for _ in range(20):
        pacer.measured(100, 100 * PASS_TARGET_S / 64)
    assert pacer.rows_beside in (32, 64), "a bucket: with a row more a pass would cost twice as much"
    for _ in range(20):
        pacer.measured(100, 100 * PASS_TARGET_S / 100)
    assert pacer.rows_beside == 64
    for _ in range(40):
        pacer.measured(100, 1000.0)
    assert pacer.rows_beside == MIN_BLOCK_ROWS
    pacer.measured(1, 1e6)
    assert pacer.rows_beside == MIN_BLOCK_ROWS, "a pass without prompts says nothing of prompts"


# --- the same bits in any company

sequences = st.lists(st.lists(st.integers(0, 511), min_size=2, max_size=40), min_size=1, max_size=4)


@given(sequences, st.data())
@relaxed
def test_logits_do_not_depend_on_who_else_is_in_the_pass(
    node: Serving, token_ids: list[list[int]], data: st.DataObject
) -> None:
    """Sequences cut at random into passes that they share at random, against each alone in one piece."""
    decoder = Decoder.of_units(node.model, node.node.kernels, LocalLinear(node.node.kernels))
    alone = [decoder.forward(each, decoder.new_cache()) for each in token_ids]
    caches = [decoder.new_cache() for _ in token_ids]
    last: list[np.ndarray | None] = [None] * len(token_ids)
    while any(cache.length < len(each) for cache, each in zip(caches, token_ids, strict=True)):
        open_ = [i for i, each in enumerate(token_ids) if caches[i].length < len(each)]
        chosen = data.draw(st.lists(st.sampled_from(open_), min_size=1, unique=True))
        parts = []
        for i in chosen:
            start = caches[i].length
            stop = data.draw(st.integers(start + 1, len(token_ids[i])))
            parts.append(Part(token_ids[i][start:stop], caches[i]))
        for i, logits in zip(chosen, decoder.forward_parts(parts, [True] * len(parts)), strict=True):
            last[i] = logits
    for expected, got in zip(alone, last, strict=True):
        assert got is not None and np.array_equal(expected, got)


def test_texts_of_requests_that_meet_are_those_of_each_alone(node: Serving) -> None:
    prompts = ["Once upon a time", "The cat", "One day a fox met a bird " * 12, "A", "Lily and Tom went"]
    alone = []
    for index, prompt in enumerate(prompts):
        asked = node.ask(f"alone {index}", prompt, LONG)
        assert isinstance(asked.finish(), Completed)
        alone.append(asked.token_ids)
    together = [node.ask(f"together {index}", prompt, LONG) for index, prompt in enumerate(prompts)]
    receipts = [asked.finish() for asked in together]
    assert [asked.token_ids for asked in together] == alone
    for receipt in receipts:
        assert isinstance(receipt, Completed)
        chunks = receipt.receipt.chunks
        assert chunks.merged == chunks.local >= 60 * 24


def test_streams_advance_together_and_a_newcomer_is_let_in(node: Serving) -> None:
    first = node.ask("first", "Once upon a time", SamplingParams(max_tokens=300, seed=1, ignore_eos=True))
    while not isinstance(first.next(), Token):
        pass
    second = node.ask("second", "The cat", SamplingParams(max_tokens=5, seed=1, ignore_eos=True))
    assert isinstance(second.finish(), Completed)
    assert any(running.request.id == "first" for running, _mode in node.engine.requests()), "it still runs"
    node.engine.cancel("first")
    first.finish()


# --- what askers hear


def test_events_come_in_order_and_the_receipt_is_last(node: Serving) -> None:
    asked = node.ask("ordered", "One day a fox " * 10, LONG)
    completed = asked.finish()
    kinds = [type(event) for event in asked.heard]
    assert kinds[:2] == [Queued, Started] and kinds[-1] is Completed
    done = [event.done for event in asked.heard if isinstance(event, Prefilled)]
    assert done == sorted(done) and done[-1] == max(e.total for e in asked.heard if isinstance(e, Prefilled))
    tokens = [event for event in asked.heard if isinstance(event, Token)]
    assert [token.index for token in tokens] == list(range(60))
    assert isinstance(completed, Completed)
    assert completed.receipt.text == "".join(token.text for token in tokens)
    said = completed.receipt.as_json()
    assert Receipt.from_json(json.loads(json.dumps(said))).as_json() == said, "a receipt survives its way to `run`"


def test_the_next_turn_begins_where_the_last_one_ended(node: Serving) -> None:
    """A kept cache saves the prompt, and changes nothing in the text."""
    prompt = "One day a fox met a bird and said " * 6
    first = node.ask("turn 1", prompt, LONG)
    said = first.finish()
    assert isinstance(said, Completed)
    longer = prompt + said.receipt.text + " The end. Then"
    second = node.ask("turn 2", longer, LONG)
    second.finish()
    total = next(event.total for event in second.heard if isinstance(event, Prefilled))
    assert total < len(node.model.tokenizer().encode(longer)) / 2
    fresh = node.ask("turn 2 afresh", longer, LONG, Privacy.STRICT)  # another runner: it has no caches
    fresh.finish()
    assert fresh.token_ids == second.token_ids


def test_a_cancelled_request_ends_with_a_receipt_of_what_was_done(node: Serving) -> None:
    asked = node.ask("doomed", "Once", SamplingParams(max_tokens=400, seed=1, ignore_eos=True))
    while not isinstance(asked.next(), Token):
        pass
    assert node.engine.cancel("doomed")
    ended = asked.finish()
    assert isinstance(ended, Completed)
    assert ended.receipt.finish_reason == "cancelled"
    assert ended.receipt.tokens == len(asked.token_ids)
    assert not node.engine.cancel("doomed"), "it is gone"


def test_a_request_that_waits_can_be_cancelled_at_once(node: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.engine.runner.MAX_RUNNING", 1)
    running = node.ask("running", "Once", SamplingParams(max_tokens=300, seed=1, ignore_eos=True))
    while not isinstance(running.next(), Token):
        pass
    waiting = node.ask("waiting", "Once", LONG)
    assert waiting.next() == Queued(1)
    node.engine.cancel("waiting")
    ended = waiting.finish()
    assert isinstance(ended, Completed) and ended.receipt.finish_reason == "cancelled" and not waiting.token_ids
    node.engine.cancel("running")
    running.finish()


def test_an_id_is_used_once_at_a_time_and_bad_prompts_are_refused_at_once(node: Serving) -> None:
    first = node.ask("same", "Once", SamplingParams(max_tokens=200, seed=1, ignore_eos=True))
    with pytest.raises(DuplicateRequestError):
        node.ask("same", "Once", LONG)
    node.engine.cancel("same")
    first.finish()
    with pytest.raises(PromptError, match="context"):
        node.ask("long", "cat " * 3000, LONG)


def test_a_listener_that_fails_hurts_nobody(node: Serving) -> None:
    from node.engine import GenerationRequest

    calls = threading.Event()

    def broken(event: object) -> None:
        calls.set()
        raise ValueError("a mistake of whoever listens")

    prompt_ids = tuple(node.model.tokenizer().encode("Once"))
    node.engine.submit(GenerationRequest("broken", node.model, prompt_ids, LONG, Privacy.LOCAL, True), broken)
    assert calls.wait(5)
    assert isinstance(node.ask("beside", "Once", LONG).finish(), Completed)


def test_a_pass_that_fails_ends_its_requests_with_a_reason_and_the_engine_goes_on(
    node: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_arguments: object) -> None:
        raise RuntimeError("kernels on fire")

    with monkeypatch.context() as patched:
        patched.setattr(Decoder, "forward_parts", failing)
        failed = node.ask("failing", "Once", LONG).finish()
    assert isinstance(failed, Failed) and failed.code == "internal"
    assert "kernels on fire" in caplog.text
    assert isinstance(node.ask("after", "Once", LONG).finish(), Completed)


def test_an_engine_that_stops_tells_everybody(tmp_path_factory: pytest.TempPathFactory) -> None:
    asked: list[Asked] = []
    with serving(tmp_path_factory.mktemp("stopping")) as node:
        for index in range(3):
            params = SamplingParams(max_tokens=400, seed=1, ignore_eos=True)
            asked.append(node.ask(f"r{index}", "Once", params))
        while not isinstance(asked[0].next(), Token):
            pass
    ends = [each.finish() for each in asked]
    assert all(isinstance(end, Failed) and end.code == "stopping" for end in ends)
