"""Which models a start means: what is here, and what the user or an invitation vouched for."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from test_model_checkpoints import write_checkpoint

from node.cli.options import NO_MODEL, MemoryType
from node.cli.wanted import absent_id, lendable_bytes, meant, wanted_models
from node.errors import ModelNotFoundError
from node.store.library import BUILT_IN_NAME, Library
from node.swarm.credentials import KnownModel, Swarm

ABSENT = "ab" * 32


@pytest.fixture
def library(tmp_path: Path) -> Library:
    library = Library(tmp_path / "models")
    library.import_folder(write_checkpoint(tmp_path / "tiny"))
    return library


def ids(library: Library, model: str, swarm: Swarm) -> tuple[list[str], list[str]]:
    """Ids of the models that are opened, and of those that peers are to bring."""
    wanted = wanted_models(library, model, swarm)
    here, absent = wanted.whole, wanted.absent
    return [stored.model_id for stored in here], list(absent)


def test_what_is_here_is_opened_and_an_unknown_id_is_fetched(library: Library) -> None:
    here = library.named()["tiny"]
    alone = Swarm(None)
    assert ids(library, "tiny", alone) == ids(library, here, alone) == ([here], [])
    assert ids(library, ABSENT, alone) == ([], [ABSENT])
    assert ids(library, NO_MODEL, alone) == ([], [])
    with pytest.raises(ModelNotFoundError):
        wanted_models(library, "unheard-of", alone)


def test_an_invitation_vouches_for_ids_and_names(library: Library) -> None:
    here = library.named()["tiny"]
    invited = Swarm(None, models=(KnownModel("big", bytes.fromhex(ABSENT)), KnownModel("same", bytes.fromhex(here))))
    assert ids(library, "tiny", invited) == ([here], [ABSENT])
    assert ids(library, "big", invited) == ids(library, NO_MODEL, invited) == ([here], [ABSENT]), "both are run"
    assert ids(library, "same", invited) == ([here], [ABSENT]), "called otherwise here"
    assert meant(library, "tiny", Swarm(None, models=(KnownModel("tiny", bytes(32)),))) == "tiny", "own names first"
    assert absent_id(library, meant(library, "big", invited)) == ABSENT and absent_id(library, here) is None


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("7", 7), ("2KiB", 2048), ("1.5m", 3 << 19), ("4 GiB", 4 << 30), ("1T", 1 << 40), ("9B", 9)],
)
def test_amounts_of_memory(text: str, num_bytes: int) -> None:
    assert MemoryType().convert(text, None, None) == num_bytes


@pytest.mark.parametrize("text", ["", "much", "-1", "1 GB of it", "0x10"])
def test_what_is_no_amount_of_memory(text: str) -> None:
    with pytest.raises(click.BadParameter, match="512MiB"):
        MemoryType().convert(text, None, None)


def test_half_of_what_is_free_is_lent() -> None:
    assert 0 < lendable_bytes() < 1 << 50


def test_a_damaged_model_that_was_only_published_does_not_end_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = Library(tmp_path / "models")
    story = library.resolve(BUILT_IN_NAME)
    other = library.import_folder(write_checkpoint(tmp_path / "other"), "other").model_id
    swarm = Swarm(None)
    assert [model.model_id for model in wanted_models(library, "story", swarm, [other]).whole] == [
        story.model_id,
        other,
    ]
    next((library.models_dir / other / "units").iterdir()).write_bytes(b"damaged")
    again = Library(tmp_path / "models")
    assert [model.model_id for model in wanted_models(again, "story", swarm, [other]).whole] == [story.model_id]
    assert f"model {other[:16]} is not on the swarm" in capsys.readouterr().err
