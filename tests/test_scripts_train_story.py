"""The story model's trainer: clean text in, a repeatable run, a complete checkpoint folder out."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tokenizers import Tokenizer

from scripts.story import text as story_text
from scripts.story import tokenizer as story_tokenizer
from scripts.story import train as trainer

TINY = [
    *("--vocab-size", "400", "--hidden-size", "32", "--intermediate-size", "64", "--layers", "2"),
    *("--heads", "4", "--key-value-heads", "2", "--window", "16", "--decay-window", "32"),
    *("--batch-tokens", "128", "--evaluate-every", "10", "--threads", "1"),
]
CHECKPOINT_FILES = {
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "README.md",
}


def made_up_story(chance: random.Random) -> str:
    """A few sentences, long enough to count as a story."""
    name = "".join(chance.choices("aeiobdklmnrst", k=8)).capitalize()
    animal, place = chance.choice(["cat", "dog", "bird", "fox"]), chance.choice(["garden", "park", "forest"])
    opening = f"Once upon a time there was a {animal} named {name} who lived in a house near the {place}."
    middle = f"Every day {name} the {animal} walked to the {place} and looked for something good to eat."
    return f"{opening}\n\n{middle} One day a friend came.\n\nThey played until the sun went down."


@pytest.fixture(autouse=True)
def thread_count() -> Iterator[None]:
    """The trainer sets the count for the whole process; other tests want theirs back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def text_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    chance = random.Random(7)
    folders = []
    for name in ("tales", "books"):
        folder = tmp_path_factory.mktemp(name, numbered=False)
        stories = [made_up_story(chance) for _ in range(120)]
        separator = f"\n{story_text.STORY_SEPARATOR}\n" if name == "tales" else "\n\nA NEW TALE\n\n"
        (folder / "all.txt").write_text(separator.join(stories), encoding="utf-8")
        folders.append(folder)
    return folders[0], folders[1]


@pytest.fixture(scope="module")
def tokenizer(text_folders: tuple[Path, Path]) -> Tokenizer:
    texts = [passage.text for folder in text_folders for passage in story_text.read_source(folder).train]
    trained = story_tokenizer.train_tokenizer(texts, 400)
    return Tokenizer.from_str(trained.to_str())


def arguments(text_folders: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    tales, books = text_folders
    return ["--text", f"{tales}=2:3", "--text", f"{books}", "--out", str(out), *TINY, *more]


def test_two_runs_agree_and_leave_a_complete_folder(text_folders: tuple[Path, Path], tmp_path: Path) -> None:
    first = trainer.main(arguments(text_folders, tmp_path / "first", "--steps", "20"))
    second = trainer.main(arguments(text_folders, tmp_path / "second", "--steps", "20"))
    assert first == pytest.approx(second, rel=0.01)
    assert list(first) == ["tales", "books"]
    assert all(loss < 6.0 for loss in first.values()), "an untrained model is at ln 400 = 6.0"
    assert {file.name for file in (tmp_path / "first").iterdir()} == CHECKPOINT_FILES
    assert (tmp_path / "first.training" / "state.pt").is_file()


def test_resuming_changes_nothing(text_folders: tuple[Path, Path], tmp_path: Path) -> None:
    whole = trainer.main(arguments(text_folders, tmp_path / "whole", "--steps", "20"))
    in_two_legs = arguments(text_folders, tmp_path / "legs", "--steps", "20")
    halfway = trainer.main([*in_two_legs, "--until", "10"])
    finished = trainer.main([*in_two_legs, "--resume"])
    assert finished == pytest.approx(whole, rel=1e-4)
    assert finished != pytest.approx(halfway, rel=1e-4)


def test_minutes_end_the_run(text_folders: tuple[Path, Path], tmp_path: Path) -> None:
    given_arguments = arguments(text_folders, tmp_path / "out", "--minutes", "0.01")
    run = trainer.prepare(trainer.parse_arguments(given_arguments))
    trainer.train(run)
    assert run.progress.step == run.total_steps
    assert run.progress.decay_start is not None


def test_checkpoint_is_a_transformers_llama(text_folders: tuple[Path, Path], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    out = tmp_path / "out"
    run = trainer.prepare(trainer.parse_arguments(arguments(text_folders, out, "--steps", "2")))
    trainer.train(run)
    trainer.finish(run)
    run.model.eval()
    reference = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    tokens = torch.tensor([run.tokenizer.encode("Once upon a time there was a cat.").ids])
    with torch.no_grad():
        difference = (run.model(tokens) - reference(tokens).logits).abs().max().item()
    assert difference < 1e-4
    assert "lm_head.weight" not in load_file(out / "model.safetensors")
    assert json.loads((out / "config.json").read_text(encoding="utf-8"))["model_type"] == "llama"


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁")))
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assume(not any(name in text for name in story_tokenizer.SPECIAL_TOKENS))
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


AWKWARD_TEXTS = ["", " ", "  two  spaces ", "é 日本 \U0001f600", "a\n\n\nb\r\n\tc", "\x00", "don't"]


@pytest.mark.parametrize("text", AWKWARD_TEXTS)
def test_awkward_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(text).ids
    assert tokens[0] == story_tokenizer.BOS_ID
    assert story_tokenizer.UNKNOWN_ID not in tokens
    assert tokenizer.decode(tokens) == text


def test_the_two_known_exceptions(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a▁b").ids) == "a b"
    assert tokenizer.decode(tokenizer.encode("a</s>").ids) == "a"


def test_special_and_byte_tokens_have_fixed_ids(tokenizer: Tokenizer) -> None:
    assert [tokenizer.id_to_token(index) for index in range(4)] == ["<unk>", "<s>", "</s>", "<0x00>"]
    assert tokenizer.id_to_token(258) == "<0xFF>"


def test_tokenizer_training_is_repeatable() -> None:
    texts = ["The cat sat on the mat.", "The dog ate the fig.", "Ω ж ß once each"] * 3
    trained = [story_tokenizer.train_tokenizer(texts, 400).to_str() for _ in range(4)]
    assert len(set(trained)) == 1


def test_books_lose_all_that_is_not_prose() -> None:
    book = (
        "The Project Gutenberg eBook\r\n\r\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\r\n\r\n"
        "CONTENTS\r\n\r\n   I. The Cat    1\r\n\r\nTHE CAT\r\n\r\n[Illustration: a cat]\r\n\r\n"
        "There was once in a far country a cat--it was a \u201cbig\u201d\r\none.\r\n\r\n_She_ slept.\r\n\r\n"
        "   Sing a song,\r\n   A merry song.\r\n\r\nTHE DOG\r\n\r\nIt didn\u2019t bark.\r\n\r\n"
        "*** END OF THE PROJECT GUTENBERG EBOOK X ***\r\n\r\nYou may copy it."
    )
    cat, dog = story_text.split_stories(book)
    assert cat == ['There was once in a far country a cat - it was a "big" one.', "She slept."]
    assert dog == ["It didn't bark."]


def test_separated_stories_keep_their_lines_as_paragraphs() -> None:
    text = "One.\nTwo it\u00e2\u20ac\u2122s.\n<|endoftext|>\n\nThree.\n<|endoftext|>\n"
    assert list(story_text.split_stories(text)) == [["One.", "Two it's."], ["Three."]]


def test_only_the_last_passage_of_a_long_story_ends_it() -> None:
    passages = list(story_text.cut_passages(["x" * 1500] * 3))
    assert [passage.ends_story for passage in passages] == [False, False, True]


def test_nothing_held_out_is_learned(tmp_path: Path) -> None:
    chance = random.Random(3)
    stories = [made_up_story(chance) for _ in range(100)]
    (tmp_path / "a.txt").write_text("<|endoftext|>".join(stories * 2), encoding="utf-8")
    source = story_text.read_source(tmp_path)
    learned = {passage.text for passage in source.train}
    assert source.held_out
    assert not learned & {passage.text for passage in source.held_out}
    assert len(learned) == len(source.train), "a story told twice is learned once"


def test_simplest_passages_are_kept() -> None:
    plain = story_text.Passage("the cat saw the dog and the cat ran home", True)
    learned = story_text.Passage("the philosopher contemplated transcendental magnitudes", True)
    model = story_text.Source("model", [plain], [])
    kept = story_text.keep_simplest(story_text.Source("books", [learned, plain], [learned]), model, 0.5)
    assert plain in kept.train


def test_level_part_can_be_prolonged() -> None:
    factor = trainer.learning_rate_factor
    assert factor(0, None, None) == 1 / trainer.WARMUP_STEPS
    assert factor(5000, None, None) == 1.0
    assert factor(1000, 1000, 2000) == 1.0
    assert factor(1500, 1000, 2000) == 0.5
