"""Guessed tokens over real processes: the text of local, fewer passes, and as many rows in every pass."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from puppets import write_puppet

from node.store.library import Library
from scripts.harness.swarm import RunResult, Swarm

pytestmark = pytest.mark.swarm

FOLLOWS = {ord(a): ord(b) for a, b in zip("abcdefg", "bcdefga", strict=True)}
TOKENS = 33
UNITS_OF_STORY = 24


CLOSE = {**FOLLOWS, ord("d"): ord("x")}
"""What a draft says that errs after each d."""


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    with Swarm() as swarm:
        swarm.start(2)
        yield swarm


def ask(swarm: Swarm, *options: str, prompt: str = "Once upon a time") -> RunResult:
    given = ["--max-tokens", str(TOKENS), "--ignore-eos", "--seed", "5", *options]
    answer = swarm.run(prompt, given)
    assert answer.returncode == 0, answer.narration
    return answer


@pytest.mark.parametrize("temperature", [pytest.param("0", marks=pytest.mark.long), "0.8"])
def test_every_mode_gives_the_text_of_local(swarm: Swarm, temperature: str) -> None:
    expected = ask(swarm, "--privacy", "local", "--temperature", temperature)
    assert expected.receipt["speculation"] is None
    for mode in ("split", "strict"):
        plain = ask(swarm, "--privacy", mode, "--temperature", temperature, "--speculate", "off")
        guessed = ask(swarm, "--privacy", mode, "--temperature", temperature, "--speculate", "8")
        assert guessed.token_ids == plain.token_ids == expected.token_ids
        told = guessed.receipt["speculation"]
        assert told["window"] == 8 and told["passes"] + told["right"] == TOKENS - 1
        chunks = guessed.receipt["chunks"]
        assert chunks["merged"] == UNITS_OF_STORY * (told["passes"] + 1), "one chunk of a layer in each pass"
        assert chunks["verified"] > 0 and plain.receipt["chunks"]["merged"] == UNITS_OF_STORY * TOKENS


def test_a_text_that_repeats_needs_few_passes(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = write_puppet(tmp_path_factory.mktemp("puppet") / "alphabet", FOLLOWS)
    with Swarm(model=str(folder)) as swarm:
        swarm.start(2)
        answer = ask(swarm, "--privacy", "split", "--temperature", "0", "--speculate", "8", prompt="abcdefgabc")
        told = answer.receipt["speculation"]
        assert answer.text == ("defgabc" * 5)[:TOKENS] and told["passes"] == 4 and told["right"] == TOKENS - 5


def test_a_draft_model_guesses(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("puppets")
    library = Library(folder / "models")
    library.import_folder(write_puppet(folder / "alphabet", FOLLOWS), "alphabet")
    library.import_folder(write_puppet(folder / "close", CLOSE), "close")
    with Swarm(model="alphabet", models=folder / "models") as swarm:
        swarm.start(2)
        plain = ask(swarm, "--privacy", "split", "--temperature", "0", prompt="ab")
        options = ("--privacy", "split", "--temperature", "0", "--draft", "close")
        answer = ask(swarm, *options, "--speculate", "4", prompt="ab")
        told = answer.receipt["speculation"]
        assert answer.token_ids == plain.token_ids and told["draft"] == "close"
        assert told["passes"] + told["right"] == TOKENS - 1 and 15 < told["right"] < TOKENS - 5
        refused = swarm.run("ab", [*options[:-1], "story"])
        assert refused.returncode == 1 and "another vocabulary than alphabet" in refused.narration
