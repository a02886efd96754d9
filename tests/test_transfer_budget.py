"""`--memory`: one bound for what a node keeps itself, serves to others, and computes for holders that are gone."""

from __future__ import annotations

import pytest
from test_model_checkpoints import write_checkpoint

from node.store.check_file import check_bytes
from node.store.importer import import_checkpoint
from node.store.stored import StoredModel
from node.transfer.budget import MemoryBudget

TOTAL = 1 << 26


@pytest.fixture(scope="module")
def park(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    folder = tmp_path_factory.mktemp("model")
    return StoredModel(import_checkpoint(write_checkpoint(folder / "checkpoint"), folder / "store").path)


def test_a_node_that_keeps_nothing_itself_lends_all_of_it(park: StoredModel) -> None:
    assert MemoryBudget(TOTAL).for_others(park.manifest) == TOTAL


def test_a_thin_client_lends_what_it_does_not_need(park: StoredModel) -> None:
    budget = MemoryBudget(TOTAL, frozenset({"gate_up", "down"}))
    lent = [ref for ref in park.units if ref.kind in ("gate_up", "down")]
    own = sum(ref.num_bytes for ref in park.units if ref not in lent) + sum(map(check_bytes, lent))
    assert budget.for_others(park.manifest) == TOTAL - own - max(ref.num_bytes for ref in lent)
    assert budget.to_borrow(park.manifest, []) == TOTAL - own
    assert budget.to_borrow(park.manifest, lent[:2]) == TOTAL - own - sum(ref.num_bytes for ref in lent[:2])
    assert budget.to_borrow(park.manifest, [ref for ref in park.units if ref not in lent]) == TOTAL - own, "counted"


def test_there_is_never_less_than_nothing(park: StoredModel) -> None:
    tiny = MemoryBudget(1, frozenset({"head"}))
    assert tiny.for_others(park.manifest) == tiny.to_borrow(park.manifest, park.units) == 0
