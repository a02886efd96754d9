"""Sampling: the order and the sets of transformers, determinism by seed, and errors that name the value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from node.errors import ModelError, PromptError
from node.model.sampling import Sampler, SamplingParams, _candidates

PROMPT = [3, 5, 5, 8]

CASES: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 12},
    {"temperature": 1.3, "top_p": 0.8},
    {"temperature": 0.9, "min_p": 0.1},
    {"temperature": 1.0, "top_p": 0.0},
    {"temperature": 1.0, "top_k": 500},
    {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.3},
]


def expected_probabilities(logits: np.ndarray[Any, Any], params: SamplingParams) -> np.ndarray[Any, Any]:
    warpers: Any = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(params.repetition_penalty)])
    warpers.append(TemperatureLogitsWarper(params.temperature))
    if params.top_k:
        warpers.append(TopKLogitsWarper(params.top_k))
    warpers.append(TopPLogitsWarper(params.top_p))
    warpers.append(MinPLogitsWarper(params.min_p))
    scores = warpers(torch.tensor([PROMPT]), torch.from_numpy(logits.copy())[None])
    probabilities: np.ndarray[Any, Any] = scores[0].double().softmax(-1).numpy()
    return probabilities


@pytest.mark.parametrize("case", CASES, ids=[" ".join(case) for case in CASES])
def test_probabilities_are_those_of_transformers(case: dict[str, Any]) -> None:
    params = SamplingParams(**case)
    for seed in range(5):
        logits = np.random.default_rng(seed).standard_normal(200).astype(np.float32) * 4
        ids, weights = _candidates(Sampler(params, PROMPT)._penalized(logits), params)
        actual = np.zeros(200)
        actual[ids] = weights / weights.sum()
        np.testing.assert_allclose(actual, expected_probabilities(logits, params), atol=1e-6)


def test_a_nucleus_in_a_large_vocabulary() -> None:
    for spread in (0.01, 3.0):  # a flat distribution needs far more tokens than are looked at first
        logits = np.random.default_rng(0).standard_normal(5000).astype(np.float32) * np.float32(spread)
        params = SamplingParams(temperature=0.9, top_p=0.7)
        ids, weights = _candidates(logits, params)
        actual = np.zeros(5000)
        actual[ids] = weights / weights.sum()
        np.testing.assert_allclose(actual, expected_probabilities(logits, params), atol=1e-6)


def test_draws_follow_the_probabilities() -> None:
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.125], dtype=np.float32))
    sampler = Sampler(SamplingParams(temperature=1.0, seed=7), [])
    counts = np.bincount([sampler.pick(logits) for _ in range(4000)], minlength=4) / 4000
    np.testing.assert_allclose(counts, [0.5, 0.25, 0.125, 0.125], atol=0.03)


def test_a_seed_gives_the_same_tokens_and_the_very_ones() -> None:
    logits = np.linspace(0, 3, 50, dtype=np.float32)
    runs = []
    for seed in (1, 1, 2):
        sampler = Sampler(SamplingParams(temperature=1.0, seed=seed), [])
        runs.append([sampler.pick(logits) for _ in range(8)])
    assert runs[0] == runs[1] != runs[2]
    assert runs[0] == [32, 47, 23, 8, 48, 11, 45, 29], "a change here changes what a seed means"


def test_greedy_takes_the_lowest_of_equals() -> None:
    assert Sampler(SamplingParams(), []).pick(np.array([1, 4, 4, 0], dtype=np.float32)) == 1


def test_penalty_counts_what_was_picked() -> None:
    sampler = Sampler(SamplingParams(repetition_penalty=2.0), [])
    logits = np.array([3.0, 2.0, -1.0], dtype=np.float32)
    assert [sampler.pick(logits) for _ in range(3)] == [0, 1, 0]


def test_tiny_temperature_is_greedy_and_not_a_nan() -> None:
    sampler = Sampler(SamplingParams(temperature=1e-300, seed=0), [])
    assert sampler.pick(np.array([-5.0, 80.0, 79.0], dtype=np.float32)) == 1


def test_logits_that_are_no_numbers() -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(ModelError, match="not finite"):
            Sampler(SamplingParams(), []).pick(np.array([0.0, bad], dtype=np.float32))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", True),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 1.1),
        ("min_p", -1),
        ("repetition_penalty", 0),
        ("seed", -1),
        ("max_tokens", 0),
        ("stop", ("",)),
        ("stop", "text"),
        ("stop", ("x",) * 17),
    ],
)
def test_each_bad_value_is_one_clear_error(name: str, value: Any) -> None:
    with pytest.raises(PromptError, match=f"^{name} ") as error:
        SamplingParams(**{name: value})
    assert "\n" not in str(error.value)


def test_defaults_of_a_model() -> None:
    generation = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": 2}
    params = SamplingParams.from_generation_config(generation, seed=4, top_p=None)
    assert params == SamplingParams(temperature=0.6, top_k=20, top_p=0.95, seed=4)
    assert SamplingParams.from_generation_config({"temperature": 0.6}).temperature == 0
    assert SamplingParams.from_generation_config({"top_p": 7, "do_sample": True}).temperature == 1
    assert SamplingParams.from_generation_config(generation, temperature=0).temperature == 0
    with pytest.raises(PromptError, match="topk"):
        SamplingParams.from_generation_config({}, topk=3)
    with pytest.raises(PromptError, match="temperature"):
        SamplingParams.from_generation_config({}, temperature=-3)
