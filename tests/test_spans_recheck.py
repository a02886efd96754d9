"""What is computed again of spans: how much, which rows, to which bit; and what a result is bound to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from made_parts import KERNELS
from msgspec.structs import replace
from span_home import IDS
from test_model_checkpoints import write_checkpoint
from test_spans_chain import LAYERS

from node.kernels import has_same_floats, select_kernels
from node.model.cache import KVCache
from node.model.row_log import RowLog
from node.model.span import SpanLayers, SpanPart
from node.privacy import DEFAULT_RECHECK
from node.session.config import SessionConfig
from node.spans.recheck import ALWAYS_ROWS, Again, Recheck
from node.store.library import Library
from node.store.stored import StoredModel
from protocol import cbor
from protocol.linear.field import Floats
from protocol.spans.binding import SpanBinding, SpanRows, span_digest
from protocol.spans.messages import SpanResult

pytestmark = pytest.mark.skipif(not has_same_floats(KERNELS), reason="the C kernels are not built")
SPAN = range(1, 3)
DEVICE: Any = object()
"""Whoever computed; nothing is asked of it here."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    root = tmp_path_factory.mktemp("recheck")
    return Library(root / "models").resolve(write_checkpoint(root / "made", {"num_hidden_layers": LAYERS}))


class Text:
    """Rows of one text that go through a span, and what an honest device makes of them."""

    def __init__(self, model: StoredModel, num_rows: int) -> None:
        self.inputs = model.embedding_rows(IDS[:num_rows])
        layers = SpanLayers(model, KERNELS, SPAN)
        whole = SpanPart(layers.new_cache(num_rows, num_rows), 0, num_rows)
        self.outputs = layers.forward(self.inputs.copy(), [whole])
        self.cache = KVCache(model.config, num_rows)
        self.cache.inputs[SPAN.start] = RowLog(model.config.hidden_size)

    def seen_by(self, recheck: Recheck, outputs: Floats, start: int, stop: int) -> bool:
        part = SpanPart(self.cache, start, stop)
        return recheck.saw(DEVICE, SPAN, part, self.inputs[start:stop], outputs[start:stop]) is None


def recheck_of(model: StoredModel, share: float) -> Recheck:
    return Recheck(lambda layers, device: Again(SpanLayers(model, select_kernels(1), layers)), share)


def one_bit(rows: Floats, row: int) -> Floats:
    changed = rows.copy()
    changed[row].view(np.uint32)[-1] ^= 1
    return changed


def a_little(rows: Floats, row: int) -> Floats:
    changed = rows.copy()
    changed[row] *= np.float32(1 + 1e-6)
    return changed


def swapped(rows: Floats, row: int) -> Floats:
    changed = rows.copy()
    changed[[row, row - 1]] = changed[[row - 1, row]]
    return changed


@pytest.mark.parametrize("change", [one_bit, a_little, swapped])
@pytest.mark.parametrize("row", [0, 3, 7])
def test_each_row_of_a_step_is_compared_to_the_last_bit(
    model: StoredModel, change: Callable[[Floats, int], Floats], row: int
) -> None:
    text, recheck = Text(model, 8), recheck_of(model, 1.0)
    assert text.seen_by(recheck, text.outputs, 0, 8), "what is right is right"
    assert not Text(model, 8).seen_by(recheck_of(model, 1.0), change(text.outputs, row), 0, 8)
    assert (recheck.rows_seen, recheck.rows_equal, recheck.rows_wrong) == (8, 8, 0)


def test_the_first_wrong_row_is_named(model: StoredModel) -> None:
    text, recheck = Text(model, 12), recheck_of(model, 0.999999)
    for start in range(0, 12, 4):
        text.seen_by(recheck, one_bit(one_bit(text.outputs, 6), 10), start, start + 4)
    recheck.finish()
    lie = recheck.found()
    assert lie is not None and (lie.position, lie.layers, lie.cache()) == (6, SPAN, text.cache)
    recheck.close()


def test_a_short_way_is_always_followed_and_the_whole_way_as_often_as_the_user_says(model: StoredModel) -> None:
    cache = KVCache(model.config, 1)
    cache.capacity = 100 * ALWAYS_ROWS
    for share in (0.0, 0.05, 0.5):
        recheck = recheck_of(model, share)
        ways = [recheck._drawn(cache) for _ in range(4000)]
        whole = sum(way == cache.capacity for way in ways) / len(ways)
        assert abs(whole - share) < 5 * (0.25 / len(ways)) ** 0.5
        short = [way for way in ways if way < cache.capacity]
        assert abs(np.mean(short) / ALWAYS_ROWS - 1) < 0.2, "also where the user wants nothing computed again"
    assert {recheck_of(model, 1.0)._drawn(cache) for _ in range(20)} == {cache.capacity}


def test_one_text_in_twenty_is_followed_if_the_user_says_nothing() -> None:
    assert DEFAULT_RECHECK == SessionConfig().recheck == 0.05


BINDING = SpanBinding(7, b"m" * 32, 1, 3, (SpanRows(b"c" * 16, 0, 2), SpanRows(b"d" * 16, 5, 6)))
OTHERS = {
    "nonce": replace(BINDING, nonce=8),
    "model": replace(BINDING, model_id=b"n" * 32),
    "first layer": replace(BINDING, first=0),
    "last layer": replace(BINDING, end=4),
    "cache": replace(BINDING, parts=(replace(BINDING.parts[0], cache=b"e" * 16), BINDING.parts[1])),
    "start": replace(BINDING, parts=(BINDING.parts[0], SpanRows(b"d" * 16, 6, 7))),
    "order": replace(BINDING, parts=BINDING.parts[::-1]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_everything_that_names_a_step_goes_into_its_digest(name: str) -> None:
    rows = np.ones((3, 4), np.float32)
    assert span_digest(OTHERS[name], rows) != span_digest(BINDING, rows)
    expected = hashlib.sha256(b"kek/1 span" + cbor.encode(BINDING.as_list()) + rows.tobytes()).digest()
    assert span_digest(BINDING, rows) == expected


@pytest.mark.parametrize("shape", [(2, 4), (4, 4), (6, 4), (3, 3), (3, 5), (4, 3), (1, 12)])
def test_a_result_of_another_shape_is_no_answer(shape: tuple[int, int]) -> None:
    """Whoever took it for one would read beyond the rows that are there."""
    right, other = np.ones((3, 4), np.float32), np.ones(shape, np.float32)
    assert SpanResult(span_digest(BINDING, right), 1, right).answers(BINDING, 4)
    assert not SpanResult(span_digest(BINDING, other), 1, other).answers(BINDING, 4)
