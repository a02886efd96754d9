"""What the requests of a pass hear while it runs: never less than before, never more than there is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from node.engine import recorder
from node.engine.recorder import PassRecorder
from node.engine.request import Event, Prefilled
from node.engine.running import Running

LAYERS = 4


class Prompt(Running):
    """A request of which only the progress of its prompt is there."""

    def __init__(self, num_rows: int) -> None:
        self.heard: list[int] = []
        self.answer = cast(Any, SimpleNamespace(num_tokens=0))
        self.pending, self.prefill_rows, self._told_rows = [0] * num_rows, num_rows, 0

    def tell(self, event: Event) -> None:
        assert isinstance(event, Prefilled) and event.total == self.prefill_rows
        self.heard.append(event.done)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> PassRecorder:
    """One whose pass is not accounted for: there is no session with peers."""
    monkeypatch.setattr(recorder, "REPORT_S", 0.0)
    monkeypatch.setattr(PassRecorder, "_snapshot", lambda self: None)
    monkeypatch.setattr(PassRecorder, "_account", lambda self, before: None)
    made = PassRecorder(cast(Any, None))
    made._session = cast(Any, SimpleNamespace(decoder=SimpleNamespace(config=SimpleNamespace(num_layers=LAYERS))))
    return made


def test_rows_that_are_computed_twice_do_not_make_more_than_all(watched: PassRecorder) -> None:
    """What a lost device had is computed here again, through the same layers."""
    prompt, other = Prompt(100), Prompt(50)
    with watched.watching([(prompt, 80), (other, 50)]):
        for _ in range(2 * LAYERS):
            watched._on_layer(130)
    assert prompt.heard == [20, 40, 60, 80] and other.heard == [12, 25, 37, 50]


def test_a_pass_that_is_computed_again_is_heard_of_when_it_is_further(watched: PassRecorder) -> None:
    prompt = Prompt(100)
    for layers in (3, LAYERS):
        with watched.watching([(prompt, 100)]):
            for _ in range(layers):
                watched._on_layer(100)
    assert prompt.heard == [25, 50, 75, 100]


def test_outside_of_a_pass_nobody_hears_anything(watched: PassRecorder) -> None:
    prompt = Prompt(100)
    with watched.watching([(prompt, 100)]):
        watched._on_layer(100)
    watched._on_layer(100)
    assert prompt.heard == [25]
