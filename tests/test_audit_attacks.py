"""The attacks of the audit on made-up shares: noise passes, and every kind of bad pad is found by one of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from node.audit.attacks import LIKELIHOOD, NEAREST, REPEATED, REUSE, UNIFORM, Knowledge, attack, control
from node.audit.distinguisher import Pair
from node.audit.findings import Finding
from node.audit.inversion import FirstRows, Matcher, match_vocabulary
from node.audit.recovery import recovered
from node.audit.reuse import near_pairs
from node.audit.truth import Place, SentRows, true_rows_of
from node.audit.uniformity import uniformity
from node.audit.views import Rows, View, plain_like
from node.kernels import select_kernels
from node.model.unit import UnitRef
from node.store.library import Library
from protocol.linear.field import Elements, P, elements_of_integers

WIDTH = 96
NUM_ROWS = 400
Pads = Callable[[np.random.Generator, tuple[int, int]], Elements]


def unit(width: int = WIDTH) -> UnitRef:
    return UnitRef(0, "qkv", 8, width, hashlib.sha256(bytes([width])).digest())


def small(generator: np.random.Generator, rows: int, width: int = WIDTH) -> NDArray[np.int16]:
    """Rows of activations: mostly small, as real ones are."""
    values = generator.normal(0, 300, (rows, width)).clip(-2047, 2047)
    return values.astype(np.int16)


def share(rows: NDArray[np.int16], pads: Elements) -> Elements:
    shares: Elements = ((rows.astype(np.int64) - pads) % P).astype(np.uint32)
    return shares


def view(*parts: Elements) -> View:
    return View("test", [Rows(unit(part.shape[1]), part, [None] * len(part)) for part in parts])


def good(generator: np.random.Generator, shape: tuple[int, int]) -> Elements:
    return generator.integers(0, P, shape, dtype=np.uint32)


def narrow(bits: int) -> Pads:
    return lambda generator, shape: generator.integers(0, 1 << bits, shape, dtype=np.uint32)


def byte_by_byte(modulus: int) -> Pads:
    """Every byte reduced by itself, as where residues of small primes are drawn from bytes."""

    def draw(generator: np.random.Generator, shape: tuple[int, int]) -> Elements:
        drawn = generator.integers(0, 256, (*shape, 4), dtype=np.uint8) % modulus
        words: Elements = drawn.view("<u4")[..., 0] & np.uint32(P)
        return np.minimum(words, P - 1)

    return draw


def counting(generator: np.random.Generator, shape: tuple[int, int]) -> Elements:
    """Uniform, and each element follows from the one before."""
    starts = generator.integers(0, P, (shape[0], 1))
    return ((starts + 12345 * np.arange(shape[1])) % P).astype(np.uint32)


def p_of(elements: Elements) -> float:
    result = uniformity(view(elements), SentRows(select_kernels(1)))
    assert result is not None
    return result.p


@pytest.mark.parametrize("seed", range(5))
def test_noise_passes(seed: int) -> None:
    generator = np.random.default_rng(seed)
    shares = share(small(generator, NUM_ROWS), good(generator, (NUM_ROWS, WIDTH)))
    assert p_of(shares) > 1e-4
    found = near_pairs(view(shares))
    assert not found.found and found.compared == NUM_ROWS * (NUM_ROWS - 1) // 2


@pytest.mark.parametrize(
    "pads",
    [narrow(12), narrow(16), narrow(30), byte_by_byte(251), byte_by_byte(253), counting],
    ids=["12 bits", "16 bits", "30 bits", "bytes mod 251", "bytes mod 253", "counting"],
)
def test_pads_that_are_not_uniform_are_found(pads: Pads) -> None:
    generator = np.random.default_rng(2)
    assert p_of(share(small(generator, NUM_ROWS), pads(generator, (NUM_ROWS, WIDTH)))) < 1e-9


def test_a_pad_that_is_used_twice_is_found_and_no_statistic_of_single_rows_sees_it() -> None:
    generator = np.random.default_rng(3)
    rows, pads = small(generator, NUM_ROWS), good(generator, (NUM_ROWS, WIDTH))
    pads[311] = pads[17]
    shares = share(rows, pads)
    assert p_of(shares) > 1e-4
    found = near_pairs(view(shares))
    assert found.near == 1 and not found.opposite


def test_a_pad_is_found_again_in_another_unit_with_another_width() -> None:
    """One seed at two lengths gives the same beginning."""
    generator = np.random.default_rng(4)
    long = good(generator, (20, 2 * WIDTH))
    other = good(generator, (20, WIDTH))
    other[5] = long[11, :WIDTH]
    shares = [share(small(generator, 20, pads.shape[1]), pads) for pads in (long, other)]
    assert near_pairs(view(*shares)).near == 1


def test_a_pad_and_its_negative_are_found() -> None:
    generator = np.random.default_rng(5)
    rows, pads = small(generator, 50), good(generator, (50, WIDTH))
    pads[3] = (P - pads[40].astype(np.int64)) % P
    found = near_pairs(view(share(rows, pads)))
    assert found.opposite == 1 and not found.near


def test_rows_that_are_all_near_are_found_without_comparing_all() -> None:
    generator = np.random.default_rng(6)
    assert near_pairs(view(share(small(generator, 2000), narrow(12)(generator, (2000, WIDTH))))).overflowed


def test_every_pair_near_by_little_or_by_a_wrap_is_found() -> None:
    """Against a comparison of all pairs in all elements; values near 0 are near to those near p."""
    generator = np.random.default_rng(7)
    base = good(generator, (1, WIDTH))
    base[0, ::3] = 5
    shares = np.concatenate([share(small(generator, 9), np.repeat(base, 9, 0)), good(generator, (40, WIDTH))])
    assert near_pairs(view(shares)).near == 9 * 8 // 2


def test_pads_and_shares_together_are_rows() -> None:
    generator = np.random.default_rng(8)
    rows, pads = small(generator, 30), good(generator, (30, WIDTH))
    order = generator.permutation(30)
    places = [Place(0, index) for index in range(30)]
    shares = View("shares", [Rows(unit(), share(rows, pads), places)])
    found = recovered("both", view(pads[order]), shares)
    assert found.num_rows == 30 and found.rows[0].places == places
    np.testing.assert_array_equal(found.rows[0].centred, rows)
    assert recovered("others", view(good(generator, (30, WIDTH))), shares).num_rows == 0


# --- with the built-in model's own rows

PROMPTS = (
    "Once upon a time there was a secret that nobody may read",
    "The doctor wrote a letter to the bank of Lily",
)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Knowledge:
    """What attackers know of two texts, each asked twice."""
    model, kernels = Library(tmp_path_factory.mktemp("models")).resolve("story"), select_kernels(1)
    ids = [model.tokenizer().encode(prompt) for prompt in PROMPTS]
    texts = dict(enumerate([*ids, *ids]))
    first, last = model.unit(0, "qkv").ref, model.unit(model.config.num_layers - 1, "down").ref
    matcher = Matcher(model, kernels, [last], decoys=63)
    candidates = {
        Place(text, position): matcher.at(tokens, position)
        for text, tokens in texts.items()
        for position in (2, 5, 8)
    }
    sent = SentRows(kernels, {text: true_rows_of(model, kernels, tokens) for text, tokens in texts.items()})
    table, generator = FirstRows(model, kernels, first), np.random.default_rng(1)
    depths = {"vocabulary, last layer": last}
    return Knowledge(first, table, depths, candidates, texts, Pair((0, 2), (1, 3)), sent, generator)


def session(known: Knowledge, pads: Pads) -> View:
    """Every row of every text, shared with such pads."""
    generator, parts = np.random.default_rng(9), []
    for text, units in known.sent.texts.items():
        for ref, rows in units.items():
            places = [Place(text, position) for position in range(len(rows))]
            parts.append(Rows(ref, share(rows, pads(generator, rows.shape)), places))
    return View("shares", parts)


def attacked(seen: View, known: Knowledge) -> list[Finding]:
    return attack([seen], [seen], known)


def failed(findings: Sequence[Finding]) -> set[str]:
    return {finding.what for finding in findings if not finding.holds}


def test_noise_over_real_rows_passes_every_attack(known: Knowledge) -> None:
    findings = attacked(session(known, good), known)
    assert {finding.what for finding in findings} == {NEAREST, *known.depths, LIKELIHOOD, REPEATED, UNIFORM, REUSE}
    assert failed(findings) == set()


def test_every_control_succeeds_on_plain_rows(known: Knowledge) -> None:
    plain = plain_like(session(known, good), known.sent)
    assert failed(control(plain, known, "plain rows")) == set()
    assert failed(attacked(plain, known)) == {NEAREST, LIKELIHOOD, REPEATED, UNIFORM, REUSE} | set(known.depths)


def test_a_control_that_cannot_succeed_fails(known: Knowledge) -> None:
    """An audit whose attacks find nothing anywhere proves nothing."""
    findings = control(session(known, good), known, "plain rows")
    assert len(failed(findings)) == len(findings)


def test_narrow_pads_give_the_text_away(known: Knowledge) -> None:
    findings = attacked(session(known, narrow(10)), known)
    assert {NEAREST, LIKELIHOOD, UNIFORM, REUSE} <= failed(findings)


def test_pads_that_depend_on_the_text_are_found_by_rows_seen_before(known: Knowledge) -> None:
    def drawn_from_nothing_new(generator: np.random.Generator, shape: tuple[int, int]) -> Elements:
        return np.random.default_rng(shape[0]).integers(0, P, shape, dtype=np.uint32)

    findings = attacked(session(known, drawn_from_nothing_new), known)
    assert {REPEATED, REUSE} <= failed(findings)


def test_a_row_is_matched_by_its_direction_alone(known: Knowledge) -> None:
    """Norm and scale of a row tell the attack nothing, and change nothing."""
    ref = known.depths["vocabulary, last layer"]
    place = Place(0, 5)
    row = known.sent.true_row(ref, place).astype(np.int64) * 7
    scaled = View("scaled", [Rows(ref, elements_of_integers(row[None]), [place])])
    ranks = match_vocabulary(scaled, ref, known.candidates)
    assert ranks is not None and ranks.better == [0] and ranks.num_candidates == 64


def test_the_whole_vocabulary_can_be_tried(tmp_path: Path) -> None:
    model, kernels = Library(tmp_path).resolve("story"), select_kernels(1)
    ref = model.unit(0, "down").ref
    tokens = model.tokenizer().encode("The fox went home")
    found = Matcher(model, kernels, [ref], model.config.vocab_size).at(tokens, 2)
    assert len(found.rows[ref]) == model.config.vocab_size and found.true_index == tokens[2]
    true = true_rows_of(model, kernels, tokens)[ref][2].astype(np.float64)
    assert found.rows[ref][found.true_index] @ true == pytest.approx(np.linalg.norm(true), rel=1e-5)
