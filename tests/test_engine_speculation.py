"""Speculation: whatever is guessed, the text is the one without guesses, and every pass has the same rows."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from puppets import write_puppet

from node.config import NodeConfig
from node.engine import Engine
from node.engine.drafts import ModelDrafter, check_draft, rows_worth
from node.engine.request import Completed, Failed, GenerationRequest, Token
from node.engine.speculation import Speculation
from node.errors import PromptError
from node.kernels import select_kernels
from node.model.cache import KVCache
from node.model.decoder import Decoder
from node.model.draft import LONGEST, MAX_WINDOW, TextDrafter
from node.model.generate import Answer, Finished, GeneratedToken
from node.model.linear import LocalLinear
from node.model.sampling import Sampler, SamplingParams
from node.node import Node
from node.privacy import Privacy
from node.session.config import SessionConfig
from node.session.receipt import Receipt
from node.store.library import BUILT_IN_NAME, Library
from node.store.stored import StoredModel
from protocol.identity import Identity

PROMPT = "Once upon a time there was a cat. The cat was"
FOLLOWS = {ord(a): ord(b) for a, b in zip("abcdefg", "bcdefga", strict=True)}


class Liar:
    """Guesses anything, or what really comes next, or the same for ever."""

    def __init__(self, seed: int, truth: Sequence[int], honesty: float, vocab_size: int) -> None:
        self._random, self._truth, self._honesty, self._size = random.Random(seed), truth, honesty, vocab_size
        self._heard = 0

    def extend(self, token_ids: list[int]) -> None:
        self._heard += len(token_ids)

    def guess(self, count: int) -> list[int]:
        known = [*self._truth[self._heard :], *[0] * count][:count]
        return [
            token_id if self._random.random() < self._honesty else self._random.randrange(self._size)
            for token_id in known
        ]


class Counted:
    """A model and how many rows each of its passes had."""

    def __init__(self, model: StoredModel) -> None:
        kernels, self.rows = select_kernels(1), list[int]()
        self.decoder = Decoder.of_units(model, kernels, LocalLinear(kernels))
        forward = self.decoder.forward

        def counting(token_ids: Sequence[int], cache: KVCache, all_logits: bool = False) -> Any:
            self.rows.append(len(token_ids))
            return forward(token_ids, cache, all_logits)

        self.decoder.forward = counting  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def model(library: Library) -> StoredModel:
    return library.resolve(BUILT_IN_NAME)


@pytest.fixture(scope="module")
def decoder(model: StoredModel) -> Decoder:
    kernels = select_kernels(1)
    return Decoder.of_units(model, kernels, LocalLinear(kernels))


def answer_of(model: StoredModel, params: SamplingParams, prompt: Sequence[int]) -> Answer:
    return Answer(model.config, model.tokenizer(), prompt, params, True)


def plain(decoder: Decoder, model: StoredModel, params: SamplingParams, prompt: Sequence[int]) -> list[Any]:
    """All events, one pass a token, and what the cache holds at the end."""
    answer, cache, events = answer_of(model, params, prompt), decoder.new_cache(), list[Any]()
    events += answer.advance(decoder.forward(prompt, cache))
    while not isinstance(events[-1], Finished):
        events += answer.advance(decoder.forward([events[-1].id], cache))
    return [*events, list(cache.token_ids)]


def guessed(
    decoder: Decoder, model: StoredModel, params: SamplingParams, prompt: Sequence[int], speculation: Speculation
) -> list[Any]:
    answer, cache, events = answer_of(model, params, prompt), decoder.new_cache(), list[Any]()
    events += answer.advance(decoder.forward(prompt, cache))
    while not isinstance(events[-1], Finished):
        speculation.drafter.extend([event.id for event in events[-1:] if isinstance(event, GeneratedToken)])
        before = cache.length
        logits = speculation.compute(decoder, cache, events[-1].id)
        assert len(logits) == speculation.window, "however many guesses were right before"
        events += speculation.choose(logits, cache, answer)
        assert before < cache.length <= before + speculation.window
    return [*events, list(cache.token_ids)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1000),
    honesty=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    window=st.integers(2, MAX_WINDOW),
    temperature=st.sampled_from([0.0, 0.7, 1.5]),
    max_tokens=st.integers(1, 40),
    penalty=st.sampled_from([1.0, 1.3]),
)
def test_liars_change_no_token(
    decoder: Decoder,
    model: StoredModel,
    seed: int,
    honesty: float,
    window: int,
    temperature: float,
    max_tokens: int,
    penalty: float,
) -> None:
    prompt = model.tokenizer().encode(PROMPT)
    params = SamplingParams(
        temperature=temperature, max_tokens=max_tokens, seed=seed, repetition_penalty=penalty, logprobs=2
    )
    expected = plain(decoder, model, params, prompt)
    truth = [event.id for event in expected if isinstance(event, GeneratedToken)]
    liar = Liar(seed, truth, honesty, model.config.vocab_size)
    got = guessed(decoder, model, params, prompt, Speculation(window, liar))
    assert got[:-1] == expected[:-1]
    assert got[-1] == expected[-1], "the cache holds the same tokens"


def test_who_knows_the_text_needs_few_passes(decoder: Decoder, model: StoredModel) -> None:
    prompt = model.tokenizer().encode(PROMPT)
    params = SamplingParams(temperature=0.0, max_tokens=41, ignore_eos=True)
    truth = [event.id for event in plain(decoder, model, params, prompt) if isinstance(event, GeneratedToken)]

    class Knows(Liar):
        def guess(self, count: int) -> list[int]:
            return [*truth[self._heard :], *[0] * count][:count]

    speculation = Speculation(8, Knows(0, truth, 1.0, 1))
    answer, cache = answer_of(model, params, prompt), decoder.new_cache()
    (first,) = answer.advance(decoder.forward(prompt, cache))
    events: list[Any] = [first]
    speculation.drafter.extend([events[-1].id])
    while not isinstance(events[-1], Finished):
        step = speculation.choose(speculation.compute(decoder, cache, events[-1].id), cache, answer)
        speculation.drafter.extend([event.id for event in step if isinstance(event, GeneratedToken)])
        events += step
    assert speculation.passes == 5 and speculation.right == 35


def test_a_text_that_repeats_is_guessed() -> None:
    drafter = TextDrafter([1, 2, 3, 4, 1, 2])
    assert drafter.guess(3) == [3, 4, 1]
    drafter.extend([3])
    assert drafter.guess(7) == [4, 1, 2, 3, 4, 1, 2], "it goes on as it did"
    assert TextDrafter([5, 5, 5]).guess(2) == [5, 5] and TextDrafter([9]).guess(2) == [9, 9]
    assert TextDrafter().guess(2) == [0, 0]
    long = TextDrafter([*range(LONGEST), 77, *range(1, LONGEST), 88, *range(LONGEST)])
    assert long.guess(1) == [77], "the longest run that is known counts"


def test_rows_are_chosen_by_what_a_token_costs() -> None:
    assert rows_worth(lambda rows: 1.0, 0.0, 8) == 8, "rows cost nothing: as many as there may be"
    assert rows_worth(lambda rows: float(rows), 0.0, 8) == 1, "rows cost as much as passes"
    assert rows_worth(lambda rows: 1.0, 1.0, 8) == 1, "the draft is as slow as a pass"
    some = rows_worth(lambda rows: 1.0 + 0.1 * rows, 0.05, 8)
    assert 2 < some < 8
    assert rows_worth(lambda rows: 1.0 + 0.1 * rows, 0.05, 8, right=0.95) > some


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_draft_that_says_the_same_is_always_right_and_costs_a_row_a_guess(
    decoder: Decoder, model: StoredModel, temperature: float
) -> None:
    """Also where tokens are drawn: it has their random numbers."""
    prompt = model.tokenizer().encode(PROMPT)
    params = SamplingParams(temperature=temperature, max_tokens=33, ignore_eos=True, seed=7, top_k=40)
    expected = plain(decoder, model, params, prompt)
    answer, cache = answer_of(model, params, prompt), decoder.new_cache()
    draft = Counted(model)
    drafter = ModelDrafter(draft.decoder, prompt, answer.ahead)
    speculation = Speculation(8, drafter)
    events: list[Any] = answer.advance(decoder.forward(prompt, cache))
    drafter.extend([events[-1].id])
    while not isinstance(events[-1], Finished):
        step = speculation.choose(speculation.compute(decoder, cache, events[-1].id), cache, answer)
        drafter.extend([event.id for event in step if isinstance(event, GeneratedToken)])
        events += step
    assert events == expected[:-1]
    assert speculation.passes == 4 and speculation.right == 28
    assert draft.rows == [len(prompt) + 1, *[1] * 7, *[1] * 24], "as many rows before every pass"


def test_a_draft_that_errs_costs_as_many_rows(library: Library, tmp_path: Path) -> None:
    """Peers measure the pause before a pass: it must not tell how many guesses were right."""
    folder = write_puppet(tmp_path / "errs", {**FOLLOWS, ord("d"): ord("x")})
    model = library.resolve(library.import_folder(folder, "errs").model_id)
    draft = Counted(model)
    drafter = ModelDrafter(
        draft.decoder, list(b"ab"), answer_of(model, SamplingParams(temperature=0.0), list(b"ab")).ahead
    )
    assert drafter.guess(3) == list(b"cdx")
    drafter.extend(list(b"c"))
    assert drafter.guess(3) == list(b"dx\0")
    drafter.extend(list(b"de"))
    assert drafter.guess(3) == list(b"fga")
    drafter.extend(list(b"fgab"))
    assert drafter.guess(3) == list(b"cdx")
    assert draft.rows == [2, 1, 1, 1, *[1, 1, 1, 1] * 3]


@pytest.fixture(scope="module")
def engine(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = write_puppet(tmp_path_factory.mktemp("puppet"), FOLLOWS, config={"max_position_embeddings": 64})
    library.import_folder(folder, "alphabet")
    config = NodeConfig(Identity.from_seed(bytes(32)), None, threads=1)
    models = [library.resolve(BUILT_IN_NAME), library.resolve("alphabet")]
    with Node(config, models) as node, Engine(node, library, SessionConfig()) as engine:
        yield engine


def ask(engine: Engine, name: str, prompt: str, **changes: Any) -> tuple[list[int], Receipt]:
    model = engine.models.resolve(name)
    params = SamplingParams(temperature=0.0, max_tokens=50, ignore_eos=True)
    ids = tuple(model.tokenizer().encode(prompt))
    request = replace(GenerationRequest(f"{random.random()}", model, ids, params, Privacy.LOCAL, True), **changes)
    tokens = []
    for event in engine.ask(request):
        if isinstance(event, Token):
            tokens.append(event.id)
        elif isinstance(event, Completed):
            return tokens, event.receipt
    raise AssertionError("an answer ends with a receipt")


def test_an_engine_guesses_what_it_is_asked_to_and_not_by_itself_here(engine: Engine) -> None:
    expected, receipt = ask(engine, "alphabet", "abcdefgabc")
    assert receipt.speculation is None, "nothing is gained where no round trip is"
    tokens, receipt = ask(engine, "alphabet", "abcdefgabc", speculate=8)
    assert tokens == expected and len(tokens) == 50
    told = receipt.speculation
    assert told is not None and told.window == 8 and told.right > 35 and told.passes < 12
    assert "were guessed right" in receipt.as_line()
    assert Receipt.from_json(receipt.as_json()).speculation == told


def test_a_draft_guesses_and_the_text_stays_the_same(engine: Engine, library: Library, tmp_path: Path) -> None:
    folder = write_puppet(tmp_path / "close", {**FOLLOWS, ord("d"): ord("x")}, config={"max_position_embeddings": 48})
    draft = library.resolve(library.import_folder(folder, "close").model_id)
    expected, _ = ask(engine, "alphabet", "abcdefgabc")
    tokens, receipt = ask(engine, "alphabet", "abcdefgabc", speculate=4, draft=draft)
    told = receipt.speculation
    assert tokens == expected and told is not None and told.draft == "close"
    assert "guessed right by close" in receipt.as_line() and Receipt.from_json(receipt.as_json()).speculation == told
    assert 20 < told.right < 40, "it errs after each d, until its context ends; then the text is looked up"
    _, receipt = ask(engine, "alphabet", "abcdefgabc", draft=draft)
    assert receipt.speculation is None, "where nothing is lent, a pass costs as much as its rows"


def test_a_draft_of_another_vocabulary_is_refused(library: Library, model: StoredModel, engine: Engine) -> None:
    with pytest.raises(PromptError, match="another vocabulary"):
        check_draft(library.resolve("alphabet"), model)
    check_draft(model, model)


def test_at_the_end_of_the_context_it_goes_on_without(engine: Engine) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=500, ignore_eos=True)
    expected, _ = ask(engine, "alphabet", "abcdefgabc", params=params)
    tokens, receipt = ask(engine, "alphabet", "abcdefgabc", params=params, speculate=8)
    assert tokens == expected and len(tokens) == 54 and receipt.finish_reason == "length"


def test_the_next_turn_finds_what_was_computed_and_nothing_else(engine: Engine) -> None:
    first, _ = ask(engine, BUILT_IN_NAME, PROMPT, speculate=8)
    model = engine.models.resolve(BUILT_IN_NAME)
    longer = PROMPT + model.tokenizer().decode(first)
    expected, _ = ask(engine, BUILT_IN_NAME, longer, speculate=0)
    again, receipt = ask(engine, BUILT_IN_NAME, longer, speculate=5)
    assert again == expected and receipt.cached_tokens > 0


def test_streams_that_run_together_give_the_same_texts(engine: Engine) -> None:
    prompts = ["abcdef", "cdefgab", "gabc"]
    expected = [ask(engine, "alphabet", prompt)[0] for prompt in prompts]
    model = engine.models.resolve("alphabet")
    heard: dict[str, list[int]] = {prompt: [] for prompt in prompts}
    params = SamplingParams(temperature=0.0, max_tokens=50, ignore_eos=True)
    ended = threading.Semaphore(0)
    for prompt in prompts:
        ids = tuple(model.tokenizer().encode(prompt))

        def listen(event: Any, prompt: str = prompt) -> None:
            if isinstance(event, Token):
                heard[prompt].append(event.id)
            elif isinstance(event, Completed):
                ended.release()

        engine.submit(GenerationRequest(prompt, model, ids, params, Privacy.LOCAL, True, speculate=8), listen)
    for _ in prompts:
        assert ended.acquire(timeout=60)
    assert list(heard.values()) == expected


def test_a_cancelled_answer_ends_as_any_other_and_its_cache_is_kept(engine: Engine) -> None:
    """Found in a review: the interrupt of a pass with guesses was taken for a failure of the request."""
    model = engine.models.resolve(BUILT_IN_NAME)
    params = SamplingParams(temperature=0.0, max_tokens=400, ignore_eos=True)
    ids = tuple(model.tokenizer().encode(PROMPT))
    ended: list[Any] = []
    done = threading.Event()

    def listen(event: Any) -> None:
        if isinstance(event, Token) and event.index == 20:
            engine.cancel("cancelled")
        elif isinstance(event, Completed | Failed):
            ended.append(event)
            done.set()

    engine.submit(GenerationRequest("cancelled", model, ids, params, Privacy.LOCAL, True, speculate=8), listen)
    assert done.wait(60)
    (event,) = ended
    assert isinstance(event, Completed) and event.receipt.finish_reason == "cancelled"
    _, again = ask(engine, BUILT_IN_NAME, PROMPT + event.receipt.text, speculate=8)
    assert again.cached_tokens > 0


def test_a_pass_that_fails_leaves_the_cache_as_it_was(model: StoredModel) -> None:
    kernels = select_kernels(1)

    class Fails(LocalLinear):
        broken = False

        def linear(self, unit: Any, rows: Any, floats: Any = None) -> Any:
            if self.broken:
                raise ConnectionError("gone")
            return super().linear(unit, rows, floats)

    executor = Fails(kernels)
    decoder = Decoder.of_units(model, kernels, executor)
    prompt = model.tokenizer().encode(PROMPT)
    answer, cache = answer_of(model, SamplingParams(temperature=0.0, max_tokens=9), prompt), decoder.new_cache()
    (first,) = answer.advance(decoder.forward(prompt, cache))
    speculation = Speculation(8, TextDrafter(prompt))
    executor.broken = True  # the head, which comes after the guesses are in the cache
    with pytest.raises(ConnectionError):
        speculation.compute(decoder, cache, getattr(first, "id"))  # noqa: B009
    assert list(cache.token_ids) == prompt


def test_every_row_of_a_pass_is_followed_by_a_choice(
    decoder: Decoder, model: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing takes long with a large vocabulary, and peers measure the pause: it must not tell what was right."""
    prompt = model.tokenizer().encode(PROMPT)
    params = SamplingParams(temperature=0.9, max_tokens=30, ignore_eos=True, seed=3)
    picks: list[int] = []
    pick = Sampler._pick
    monkeypatch.setattr(Sampler, "_pick", lambda self, scores: picks.append(1) or pick(self, scores))
    expected = plain(decoder, model, params, prompt)
    truth = [event.id for event in expected if isinstance(event, GeneratedToken)]
    for honesty in (0.0, 0.7, 1.0):
        answer, cache = answer_of(model, params, prompt), decoder.new_cache()
        speculation = Speculation(8, Liar(1, truth, honesty, model.config.vocab_size))
        events: list[Any] = answer.advance(decoder.forward(prompt, cache))
        while not isinstance(events[-1], Finished):
            speculation.drafter.extend([events[-1].id])
            logits = speculation.compute(decoder, cache, events[-1].id)
            picks.clear()
            step = speculation.choose(logits, cache, answer)
            assert len(picks) == 8
            speculation.drafter.extend([e.id for e in step[:-1] if isinstance(e, GeneratedToken)])
            events += step
        assert [event for event in events if isinstance(event, GeneratedToken)] == expected[: len(truth)]
