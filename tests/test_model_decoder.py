"""The integer decoder: its logits do not depend on how a prompt is cut, and are close to the float reference."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_model_checkpoints import write_checkpoint

from node.errors import PromptError
from node.kernels import select_kernels
from node.kernels.interface import Int16s
from node.kernels.portable import PortableKernels
from node.model.cache import GROWTH_TOKENS, KVCache
from node.model.decoder import Decoder, Part
from node.model.generate import Answer, Finished, GeneratedToken, check_prompt
from node.model.head import Head
from node.model.layers import UnitLayers
from node.model.linear import LinearExecutor, LocalLinear
from node.model.sampling import SamplingParams
from node.model.tokenizer import Tokenizer
from node.model.unit import Unit
from node.store.hf.checkpoint import Checkpoint, open_checkpoint
from node.store.hf.reference import ReferenceModel
from node.store.library import BUILT_IN_FOLDER, Library
from node.store.quantize import quantize_rows
from protocol.linear.field import Floats, Sums
from scripts.benchmarks.perplexity import perplexities

SHARED = Path(__file__).parents[2] / "shared"
NUM_WINDOWS = 8
MODELS = Path(os.environ.get("KEKAHYDE_TEST_MODELS", SHARED / "models"))

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-biases": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "llama3": {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        }
    },
    "mistral": {"model_type": "mistral", "sliding_window": 5},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 4},
    "qwen3": {
        "model_type": "qwen3",
        "head_dim": 16,
        "use_sliding_window": True,
        "sliding_window": 6,
        "max_window_layers": 1,
    },
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
    "phi3": {
        "model_type": "phi3",
        "head_dim": 8,
        "partial_rotary_factor": 0.75,
        "original_max_position_embeddings": 16,
        "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.2, 1.5], "long_factor": [1.0, 3.0, 9.0]},
    },
    "smollm3": {"model_type": "smollm3", "no_rope_layers": [1, 0]},
    "olmo2": {"model_type": "olmo2"},
    "granite": {
        "model_type": "granite",
        "attention_multiplier": 0.2,
        "embedding_multiplier": 6.0,
        "residual_multiplier": 0.4,
        "logits_scaling": 0.5,
    },
    "gemma2": {"model_type": "gemma2", "head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 12},
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 16,
        "sliding_window": 6,
        "sliding_window_pattern": 2,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "final_logit_softcapping": 20.0,
    },
}


def open_decoder(folder: Path, models_dir: Path, kernels: Any = None) -> Decoder:
    kernels = kernels or select_kernels(1)
    return Decoder.of_units(Library(models_dir).resolve(folder), kernels, LocalLinear(kernels))


@pytest.fixture(scope="module")
def family_decoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Decoder]]:
    root = tmp_path_factory.mktemp("families")
    decoders = {}
    for name, overrides in FAMILIES.items():
        folder = write_checkpoint(root / name, overrides)
        decoders[name] = (folder, open_decoder(folder, root / "models"))
    return decoders


def all_logits(decoder: Decoder, ids: list[int], cuts: list[int]) -> Floats:
    cache = decoder.new_cache()
    borders = [0, *sorted(set(cuts) & set(range(1, len(ids)))), len(ids)]
    parts = [decoder.forward(ids[a:b], cache, all_logits=True) for a, b in pairwise(borders)]
    return np.concatenate(parts)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.lists(st.integers(0, 79), min_size=2, max_size=20),
    cuts=st.lists(st.integers(1, 19), max_size=4),
)
def test_logits_do_not_depend_on_the_cut(
    family_decoders: dict[str, tuple[Path, Decoder]], name: str, ids: list[int], cuts: list[int]
) -> None:
    _, decoder = family_decoders[name]
    whole = all_logits(decoder, ids, [])
    np.testing.assert_array_equal(all_logits(decoder, ids, cuts), whole)
    np.testing.assert_array_equal(all_logits(decoder, ids, list(range(len(ids)))), whole)
    np.testing.assert_array_equal(decoder.forward(ids, decoder.new_cache()), whole[-1])


class RoundedCheckpoint(Checkpoint):
    """A checkpoint with its linear layers' weights as W8 keeps them."""

    def __init__(self, folder: Path) -> None:
        opened = open_checkpoint(folder)
        super().__init__(folder, opened.config, opened._files)
        self._head_tensor, self.head = self.head, "rounded head"

    def tensor(self, name: str) -> Floats:
        if not name.endswith("proj.weight") and name != self.head:
            return super().tensor(name)
        weights, scales = quantize_rows(super().tensor(self._head_tensor if name == self.head else name))
        return weights.astype(np.float32) * scales[:, None]


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_close_to_the_float_reference(family_decoders: dict[str, tuple[Path, Decoder]], name: str) -> None:
    folder, decoder = family_decoders[name]
    ids = np.random.default_rng(3).integers(0, 80, 40).tolist()
    actual = all_logits(decoder, ids, [])
    expected = ReferenceModel(RoundedCheckpoint(folder)).logits(ids)
    # What remains are the activations' 12 bits.
    assert np.linalg.norm(actual - expected) / np.linalg.norm(expected) < 0.006
    assert actual.dtype == np.float32 and actual.shape == (40, 80)


def test_a_reused_prefix_changes_nothing(family_decoders: dict[str, tuple[Path, Decoder]]) -> None:
    _, decoder = family_decoders["mistral"]
    first, second = [5, 6, 7, 8, 9, 10, 11], [5, 6, 7, 8, 30, 31]
    cache = decoder.new_cache()
    decoder.forward(first, cache)
    assert cache.reuse(second) == 4
    np.testing.assert_array_equal(decoder.forward(second[4:], cache), decoder.forward(second, decoder.new_cache()))
    assert cache.reuse(second) == 5, "the last token is computed anew for its logits"
    assert cache.reuse([60]) == 0


def test_prompts_of_several_blocks(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "long", {"max_position_embeddings": 1300, "num_hidden_layers": 1})
    decoder = open_decoder(folder, tmp_path / "models")
    ids = np.random.default_rng(0).integers(0, 80, 1100).tolist()
    whole = decoder.forward(ids, decoder.new_cache())
    cache = decoder.new_cache()
    for start in range(0, 1100, 300):
        last = decoder.forward(ids[start : start + 300], cache)
    np.testing.assert_array_equal(last, whole)
    assert cache.length == 1100 and cache.keys[0].shape[1] <= 1100 + GROWTH_TOKENS


def test_a_text_that_may_grow_long_is_rotated_by_the_long_factors(
    family_decoders: dict[str, tuple[Path, Decoder]],
) -> None:
    """From its first token on, and however far it has grown: a text has one rotation."""
    folder, decoder = family_decoders["phi3"]
    ids = [5, 6, 7, 8, 9, 10]
    short, long = decoder.new_cache(reach=16), decoder.new_cache(reach=17)
    assert (short.stretched, long.stretched, decoder.new_cache().stretched) == (False, True, True)
    near, far = decoder.forward(ids, short, all_logits=True), decoder.forward(ids, long, all_logits=True)
    expected = ReferenceModel(RoundedCheckpoint(folder)).logits(ids)
    assert np.linalg.norm(near - expected) / np.linalg.norm(expected) < 0.006
    assert np.linalg.norm(far - expected) / np.linalg.norm(expected) > 0.02
    together = decoder.forward_parts([Part([11], short), Part([11], long)], [True, True])
    for row, reach in zip(together, (16, 17), strict=True):
        np.testing.assert_array_equal(row, decoder.forward([*ids, 11], decoder.new_cache(reach=reach)))


class FailingLinear(LocalLinear):
    """Fails once, in the second layer."""

    def __init__(self) -> None:
        super().__init__(select_kernels(1))
        self.steps: list[tuple[int, int]] = []
        self.fail = True

    def begin_step(self, num_rows: int, units: Sequence[Unit], most_waves: int = 1) -> Sequence[range]:
        self.steps.append((num_rows, len(units)))
        return super().begin_step(num_rows, units, most_waves)

    def computed_here(self, units: Sequence[Unit]) -> Sequence[bool]:
        return [False] * len(units)

    def linear(self, unit: Unit, rows: Int16s, floats: Floats | None = None) -> Sums:
        if self.fail and unit.ref.layer == 1:
            self.fail = False
            raise ConnectionError("gone")
        return super().linear(unit, rows, floats)


def test_a_failed_pass_leaves_the_cache_usable(family_decoders: dict[str, tuple[Path, Decoder]]) -> None:
    _, whole = family_decoders["llama"]
    executor = FailingLinear()
    decoder = Decoder.of_units(whole.model, select_kernels(1), executor)
    cache = decoder.new_cache()
    with pytest.raises(ConnectionError):
        decoder.forward([1, 2, 3], cache)
    assert cache.length == 0
    np.testing.assert_array_equal(decoder.forward([1, 2, 3], cache), whole.forward([1, 2, 3], whole.new_cache()))
    layer_units = 4 * whole.config.num_layers
    assert executor.steps == [(3, layer_units), (3, layer_units), (1, 1)]  # the head has the last row alone


@pytest.mark.parametrize("cut", [0, 1])
def test_runs_of_layers_give_the_same_bits(family_decoders: dict[str, tuple[Path, Decoder]], cut: int) -> None:
    _, whole = family_decoders["qwen3"]
    model, kernels, num_layers = whole.model, select_kernels(1), whole.config.num_layers
    pieces = [range(0, cut), range(cut, num_layers)]
    local = LocalLinear(kernels)
    head = Head(model, kernels, local)
    decoder = Decoder(model, [UnitLayers(model, kernels, local, piece) for piece in pieces], head)
    ids = list(range(3, 20))
    np.testing.assert_array_equal(all_logits(decoder, ids, [4, 9]), all_logits(whole, ids, [17]))
    with pytest.raises(AssertionError, match="not all layers"):
        Decoder(model, [UnitLayers(model, kernels, local, range(1, num_layers))], head)


def test_portable_kernels_give_the_same_text_shape(family_decoders: dict[str, tuple[Path, Decoder]]) -> None:
    _, fast = family_decoders["qwen3"]
    portable = PortableKernels()
    slow = Decoder.of_units(fast.model, portable, LocalLinear(portable))
    ids = list(range(3, 20))
    np.testing.assert_allclose(all_logits(slow, ids, []), all_logits(fast, ids, []), atol=0.05)


def test_cache_refuses_what_it_cannot_hold(family_decoders: dict[str, tuple[Path, Decoder]]) -> None:
    _, decoder = family_decoders["llama"]
    assert decoder.new_cache(10_000).capacity == decoder.config.context_length
    with pytest.raises(PromptError, match="5 tokens exceed the 4"):
        decoder.forward([1] * 5, decoder.new_cache(4))
    with pytest.raises(PromptError, match=r"outside 0\.\.79"):
        decoder.forward([80], decoder.new_cache())
    with pytest.raises(PromptError, match="no token"):
        decoder.forward([], decoder.new_cache())


def generate(
    decoder: Decoder,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int],
    params: SamplingParams,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[GeneratedToken | Finished]:
    """Tokens of an answer, then one `Finished`. Raises PromptError before anything is computed."""
    answer = Answer(decoder.config, tokenizer, prompt_ids, params, continues=True)
    return _events(answer, decoder, cancelled or (lambda: False))


def _events(answer: Answer, decoder: Decoder, cancelled: Callable[[], bool]) -> Iterator[GeneratedToken | Finished]:
    pending, cache = answer.prompt_ids, decoder.new_cache()
    while not cancelled():
        for event in answer.advance(decoder.forward(pending, cache)):
            yield event
            if isinstance(event, Finished):
                return
            pending = [event.id]
    yield answer.cancelled()


Run = Callable[..., tuple[list[GeneratedToken], Finished]]


@pytest.fixture(scope="module")
def run(family_decoders: dict[str, tuple[Path, Decoder]]) -> Run:
    """Generates from the prompt [5, 6, 7] and splits the events."""
    _, decoder = family_decoders["llama"]

    def generated(
        prompt: list[int] | None = None, cancelled: Callable[[], bool] | None = None, **params: Any
    ) -> tuple[list[GeneratedToken], Finished]:
        wanted = SamplingParams(**{"max_tokens": 12, "temperature": 1.5, "seed": 3, **params})
        *events, last = generate(decoder, decoder.model.tokenizer(), prompt or [5, 6, 7], wanted, cancelled)
        assert isinstance(last, Finished)
        tokens = [token for token in events if isinstance(token, GeneratedToken)]
        assert "".join(token.text for token in tokens) == last.text and last.num_tokens == len(tokens)
        assert [token.index for token in tokens] == list(range(len(tokens)))
        return tokens, last

    return generated


def test_generation_by_seed(run: Run) -> None:
    tokens, finished = run(ignore_eos=True)
    assert len(tokens) == 12 and finished.reason == "length" and len(finished.text) >= 8
    assert run(ignore_eos=True) == (tokens, finished)
    assert run(ignore_eos=True, seed=4)[0] != tokens


def test_generation_ends_at_a_stop_string(run: Run) -> None:
    _, whole = run(ignore_eos=True)
    stop = whole.text[4:6]
    tokens, finished = run(ignore_eos=True, stop=(stop, "never there"))
    assert finished.reason == "stop" and finished.text == whole.text[: whole.text.index(stop)]
    assert len(tokens) < 12


def test_generation_ends_at_the_context_limit(run: Run) -> None:
    tokens, finished = run(prompt=[5] * 60, max_tokens=100, ignore_eos=True)
    assert finished.reason == "length" and len(tokens) == 4


def test_generation_ends_at_the_end_of_sequence_token(family_decoders: dict[str, tuple[Path, Decoder]]) -> None:
    _, decoder = family_decoders["llama"]
    tokenizer = decoder.model.tokenizer()
    for seed in range(200):
        events = list(generate(decoder, tokenizer, [9], SamplingParams(temperature=3.0, max_tokens=60, seed=seed)))
        if isinstance(events[-1], Finished) and events[-1].reason == "stop":
            break
    else:
        pytest.fail("no seed ends")
    last = events[-2]
    assert isinstance(last, GeneratedToken) and last.id in decoder.config.eos_ids


def test_generation_is_cancelled(run: Run) -> None:
    asked = iter([False, False, True])
    tokens, finished = run(cancelled=lambda: next(asked), ignore_eos=True)
    assert finished.reason == "cancelled" and len(tokens) == 2


def test_bad_prompts_are_refused_at_once(
    family_decoders: dict[str, tuple[Path, Decoder]],
) -> None:
    _, decoder = family_decoders["llama"]
    with pytest.raises(PromptError, match="the prompt is empty"):
        generate(decoder, decoder.model.tokenizer(), [], SamplingParams())
    with pytest.raises(PromptError, match="64 tokens > 64, the model's context"):
        generate(decoder, decoder.model.tokenizer(), [1] * 64, SamplingParams())
    check_prompt([1] * 63, decoder.config, decoder.model.tokenizer())
    for outside in (-1, decoder.config.vocab_size, 1 << 40):
        with pytest.raises(PromptError, match=f"the prompt holds token {outside}; the model has only 0..79"):
            generate(decoder, decoder.model.tokenizer(), [1, outside], SamplingParams())


@pytest.mark.parametrize("folder", [MODELS / "stories260K", BUILT_IN_FOLDER], ids=["stories260K", "built-in"])
def test_perplexity_is_that_of_the_float_model(
    folder: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    texts = sorted((SHARED / "text" / "tinystories_samples").glob("*"))
    if not (folder / "model.safetensors").exists() or not texts:
        pytest.skip(f"no model at {folder}, or no text beside it")
    text = texts[0].read_text(errors="ignore")[:40_000]
    in_float, in_integers = perplexities(folder, tmp_path / "models", text, num_windows=NUM_WINDOWS)
    record_property("perplexities", (in_float, in_integers))
    print(f"perplexity {in_float:.4f} float, {in_integers:.4f} W8A12")
    assert in_float < 200 and abs(in_integers / in_float - 1) < 0.005


def test_executor_seam_is_what_local_linear_offers() -> None:
    executor: LinearExecutor = LocalLinear(select_kernels(1))
    executor.begin_step(1, [])


def test_cache_capacity_never_exceeds_the_context(family_decoders: dict[str, tuple[Path, Decoder]]) -> None:
    config = family_decoders["llama"][1].config
    cache = KVCache(config, 40)
    cache.reserve(40)
    assert cache.keys[0].shape == (config.num_kv_heads, 40, config.head_dim)
