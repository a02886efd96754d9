"""Passes after the end of an answer: how many, and that nothing of the answer changes."""

from __future__ import annotations

from typing import Any

import pytest

from node.engine.padding import padding_after
from node.engine.request import Completed, Event, Failed, GenerationRequest, Token
from node.engine.running import Running
from node.engine.speculation import Speculation
from node.gateway.chat.fields import read_pad_output
from node.gateway.http.errors import ApiError
from node.kernels import select_kernels
from node.model.decoder import Decoder
from node.model.draft import TextDrafter
from node.model.generate import Answer, Finished, GeneratedToken
from node.model.guide import Guide, lark_grammar
from node.model.linear import LocalLinear
from node.model.sampling import Sampler, SamplingParams
from node.privacy import MAX_PAD_OUTPUT, Privacy
from node.store.library import Library
from node.store.stored import StoredModel

DONE = Finished("stop", "text", 5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    return Library(tmp_path_factory.mktemp("models")).resolve("story")


@pytest.fixture(scope="module")
def decoder(model: StoredModel) -> Decoder:
    kernels = select_kernels(1)
    return Decoder.of_units(model, kernels, LocalLinear(kernels))


@pytest.mark.parametrize(
    ("num_passes", "multiple", "left"),
    [(12, 8, 4), (16, 8, None), (0, 8, 8), (0, 0, None), (1, 8, 7), (12, 0, None), (3, 1, None)],
)
def test_passes_are_filled_up_to_a_multiple(num_passes: int, multiple: int, left: int | None) -> None:
    padding = padding_after(DONE, num_passes, multiple)
    assert (None if padding is None else padding.left) == left


def answered(
    model: StoredModel, decoder: Decoder, pad_output: int, window: int = 0, is_seen: bool = True, tokens: int = 6
) -> tuple[list[int], int, int, Finished]:
    """(tokens, passes behind the prompt, tokens in the cache at the end, the end), passes as a runner makes them."""
    ids = tuple(model.tokenizer().encode("Once upon a time"))
    params = SamplingParams(max_tokens=tokens, ignore_eos=True)
    request = GenerationRequest("padded", model, ids, params, Privacy.SPLIT, True, pad_output=pad_output)
    shown: list[int] = []
    running = Running(request, lambda event: shown.append(event.id) if isinstance(event, Token) else None)
    running.begin(decoder.new_cache(256))
    running.is_seen = lambda: is_seen
    running.speculation = Speculation(window, TextDrafter(ids)) if window else None
    assert running.cache is not None
    passes = -1
    while True:
        passes += 1
        if running.rows_ahead:
            events = running.choose_ahead(running.compute_ahead(decoder))
        else:
            events = running.choose(decoder.forward(running.pending, running.cache))
        for event in events:
            if isinstance(event, Finished):
                return shown, passes, running.cache.length, event
            running.emit(event)
        if len(shown) == tokens:  # the user has the whole text: it was not cancelled
            assert running.cut_off("cancelled").reason == running.cut_off("error").reason == "length"


@pytest.mark.parametrize("window", [0, 4])
def test_a_padded_answer_is_the_answer(model: StoredModel, decoder: Decoder, window: int) -> None:
    plain = answered(model, decoder, 0, window)
    padded = answered(model, decoder, 8, window)
    assert plain[0] == padded[0] and plain[2:] == padded[2:], "the same tokens, cache and end"
    assert plain[1] < 8 == padded[1]
    assert answered(model, decoder, 8, window, is_seen=False) == plain, "where nobody sees the passes, none is added"


@pytest.mark.parametrize("window", [0, 4])
def test_a_pass_of_the_padding_takes_as_many_choices_as_any(
    model: StoredModel, decoder: Decoder, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Choosing takes long with a large vocabulary, and peers measure the pause."""
    picks: list[int] = []
    pick = Sampler._pick
    monkeypatch.setattr(Sampler, "_pick", lambda self, scores: picks.append(1) or pick(self, scores))
    _, passes, _, _ = answered(model, decoder, 8, window)
    assert passes == 8 and len(picks) == 1 + passes * max(window, 1)


def test_a_whole_answer_whose_padding_fails_is_no_failure(model: StoredModel, decoder: Decoder) -> None:
    ids = tuple(model.tokenizer().encode("Once upon a time"))
    request = GenerationRequest("r", model, ids, SamplingParams(max_tokens=1), Privacy.SPLIT, True, pad_output=8)
    heard: list[Event] = []
    running = Running(request, heard.append)
    running.begin(decoder.new_cache(256))
    running.is_seen = lambda: True
    assert running.cache is not None
    (token,) = running.choose(decoder.forward(running.pending, running.cache))
    assert isinstance(token, GeneratedToken)
    running.emit(token)
    assert running.fail(Failed("the node is stopping", "stopping"))
    assert isinstance(heard[-1], Completed) and heard[-1].receipt.finish_reason == "length"


def test_the_field_of_a_request() -> None:
    assert read_pad_output(None) == 0 and read_pad_output(32) == 32
    for wrong in (-1, MAX_PAD_OUTPUT + 1, "32", True, 1.5):
        with pytest.raises(ApiError):
            read_pad_output(wrong)


def test_what_is_spent_changes_no_token_and_fails_behind_no_end(decoder: Decoder, model: StoredModel) -> None:
    prompt, guide = (
        model.tokenizer().encode("Once upon a time"),
        Guide(model.guide_tokens, lark_grammar('start: "yes" | "no"')),
    )
    params = SamplingParams(temperature=0.9, max_tokens=9, seed=4)

    class AllowsNothing(Guide):
        def mask(self, scores: Any) -> Any:
            return scores * 0 - float("inf")

    texts = []
    for spends in (False, True):
        answer = Answer(model.config, model.tokenizer(), prompt, params, True, guide)
        cache = decoder.new_cache()
        logits = decoder.forward(prompt, cache)
        events: list[Any] = answer.advance(logits)
        while not isinstance(events[-1], Finished):
            if spends:
                answer.spend(logits)
            logits = decoder.forward([events[-1].id], cache)
            events += answer.advance(logits)
        texts.append(events)
        answer._sampler._guide = AllowsNothing(model.guide_tokens, lark_grammar('start: "a"'))
        answer.spend(logits)
    assert texts[0] == texts[1]
