"""`scripts/mutants`: its table fits today's tree, and a fault that is planted is noticed for the right reason."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from node.errors import CorruptModelError
from protocol.errors import RemoteProtocolError
from scripts.harness.programs import ROOT
from scripts.mutations.mutation import Mutant, mutant, stale
from scripts.mutations.planted import MUTANTS
from scripts.mutations.tree import Tree
from scripts.mutations.trial import Fate, try_mutant
from scripts.mutations.witness import is_declared

FIELD = "protocol/linear/field.py"
WORDS = "test_protocol_shares.py::test_words_lose_their_top_bit_and_nothing_else"
BIASED = next(each for each in MUTANTS if each.name == "masks-biased")


@pytest.fixture(scope="module")
def tree() -> Iterator[Tree]:
    with Tree() as tree:
        yield tree


def test_the_table_fits_the_tree() -> None:
    assert stale(MUTANTS, ROOT) == []
    assert len(MUTANTS) >= 40


@pytest.mark.parametrize(
    "spoilt",
    [
        mutant("twice", "", FIELD, "P", "Q", WORDS),
        mutant("never", "", FIELD, "this stands nowhere", "", WORDS),
        mutant("no file", "", "protocol/none.py", "P", "Q", WORDS),
        mutant("no test", "", FIELD, "HALF_P = P // 2", "HALF_P = 0"),
        mutant("another test", "", FIELD, "HALF_P = P // 2", "HALF_P = 0", f"{WORDS}_at_all"),
    ],
    ids=lambda spoilt: spoilt.name,
)
def test_what_does_not_fit_is_said(spoilt: Mutant) -> None:
    (problem,) = stale([spoilt], ROOT)
    assert problem.startswith(f"{spoilt.name}: ")
    assert stale([BIASED, BIASED], ROOT) == [f"two faults are called {BIASED.name}"]


@pytest.mark.parametrize(
    ("old", "new", "fate"),
    [
        (BIASED.edits[0].old, BIASED.edits[0].new, Fate.KILLED),
        ("HALF_P = P // 2\n", "HALF_P = P // 2  # no fault at all\n", Fate.SURVIVED),
    ],
)
def test_a_fault_is_planted_noticed_and_taken_away(tree: Tree, old: str, new: str, fate: Fate) -> None:
    before = (tree.folder / FIELD).read_text()
    verdict = try_mutant(tree, mutant("planted", "", FIELD, old, new, WORDS))
    assert verdict.fate is fate, verdict.by
    assert (verdict.by == WORDS) == (fate is Fate.KILLED)
    assert (tree.folder / FIELD).read_text() == before == (ROOT / FIELD).read_text()


def failed(text: str) -> BaseException:
    return pytest.fail.Exception(text)


@pytest.mark.parametrize(
    ("exc", "says_so"),
    [
        (AssertionError(), True),
        (failed("DID NOT RAISE <class 'ValueError'>"), True),
        (RemoteProtocolError("a rule"), True),
        (CorruptModelError("a file"), True),
        (ExceptionGroup("two", [AssertionError(), RemoteProtocolError("a rule")]), True),
        (failed("Timeout (>120.0s) from pytest-timeout."), False),
        (ImportError("no name"), False),
        (NameError("no name"), False),
        (ValueError("a crash"), False),
        (ExceptionGroup("two", [AssertionError(), ValueError("a crash")]), False),
    ],
    ids=repr,
)
def test_only_a_test_that_says_so_has_noticed_a_fault(exc: BaseException, says_so: bool) -> None:
    assert is_declared(exc) == says_so
