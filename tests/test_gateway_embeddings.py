"""`/v1/embeddings` and `/api/embed`, asked by the real clients, and held to transformers' hidden states."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import ollama
import openai
import pytest
import torch
from gateway_fakes import Serving, serving
from transformers import AutoModelForCausalLM

TEXTS = ["The cat sat on the mat.", "A dog", "One day the sun came out and all the birds sang in the garden."]
STORIES = Path(__file__).parents[2] / "shared" / "models" / "stories260K"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("data")) as one:
        yield one


@pytest.fixture
def client(node: Serving) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{node.url}/v1", api_key="any", max_retries=0) as one:
        yield one


def vectors(client: openai.OpenAI, texts: object, **more: object) -> np.ndarray:
    made = client.embeddings.create(model="story", input=texts, extra_body=more)  # type: ignore[arg-type]
    assert [each.index for each in made.data] == list(range(len(made.data)))
    return np.array([each.embedding for each in made.data])


def test_vectors_have_length_one_and_do_not_depend_on_company(client: openai.OpenAI) -> None:
    together = vectors(client, TEXTS)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    alone = np.concatenate([vectors(client, text) for text in TEXTS])
    assert np.array_equal(together, alone)
    assert not np.allclose(together, vectors(client, TEXTS, pooling="last"))


def test_a_prompt_that_a_cache_knows_gives_the_same_vector(client: openai.OpenAI) -> None:
    before = vectors(client, TEXTS[2])
    client.completions.create(model="story", prompt=TEXTS[2], max_tokens=4)
    assert np.array_equal(before, vectors(client, TEXTS[2]))


def test_tokens_count_as_their_text_and_are_counted(client: openai.OpenAI, node: Serving) -> None:
    ids = node.model.tokenizer().encode(TEXTS[0])
    assert np.array_equal(vectors(client, ids), vectors(client, TEXTS[0]))
    made = client.embeddings.create(model="story", input=[TEXTS[0], TEXTS[0]], encoding_format="float")
    assert made.usage.prompt_tokens == made.usage.total_tokens == 2 * len(ids)
    assert "a model for embeddings ranks better" in made.model_extra["kekahyde"]["note"]  # type: ignore[index]


def test_more_texts_than_are_computed_at_once_keep_their_order(client: openai.OpenAI) -> None:
    texts = [f"Number {number}" for number in range(20)]
    many = vectors(client, texts)
    assert np.array_equal(many[17], vectors(client, texts[17])[0])


def test_ollamas_client_gets_the_same(client: openai.OpenAI, node: Serving) -> None:
    with ollama.Client(host=node.url) as program:
        made = program.embed(model="story", input=TEXTS)
    assert np.allclose(np.array(made.embeddings), vectors(client, TEXTS), atol=1e-6)
    assert made.prompt_eval_count


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"dimensions": 5}, "dimensions cannot be chosen"),
        ({"pooling": "max"}, "mean or last"),
        ({"input": []}, "input must be a text"),
        ({"input": ["a"] * 2049}, "2048 at most"),
        ({"nosuch": 1}, "nosuch is unknown"),
        ({"input": "word " * 600}, "context"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(client: openai.OpenAI, body: dict[str, object], why: str) -> None:
    with pytest.raises(openai.BadRequestError, match=why):
        client.embeddings.create(model="story", input="a", extra_body=body)


@pytest.mark.skipif(not STORIES.exists(), reason="the real checkpoint is not here")
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_they_are_the_hidden_states_of_transformers(tmp_path: Path, pooling: str) -> None:
    """Up to the quantization of weights and activations."""
    reference = AutoModelForCausalLM.from_pretrained(STORIES, dtype=torch.float32)
    with serving(tmp_path, STORIES) as node:
        ids = node.model.tokenizer().encode(TEXTS[2])
        with torch.no_grad():
            hidden = reference(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0].double().numpy()
        expected = hidden.mean(axis=0) if pooling == "mean" else hidden[-1]
        with openai.OpenAI(base_url=f"{node.url}/v1", api_key="any", max_retries=0) as client:
            made = client.embeddings.create(model="puppet", input=ids, extra_body={"pooling": pooling})
        ours = np.array(made.data[0].embedding)
    assert ours @ expected / np.linalg.norm(expected) > 0.995
