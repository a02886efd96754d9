"""A short form of `scripts/fuzz`: every target reads its seeds and some hundred mutations, without coverage."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator

import pytest
from drawn_messages import messages, relaxed
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import encode_message
from protocol.message import Message
from scripts.fuzzing.forms import FRAMES, JSON, join_frames
from scripts.fuzzing.mutations import mutated
from scripts.fuzzing.served import end
from scripts.fuzzing.target import FoundError, MemoryWatch, Target, examine
from scripts.fuzzing.targets import all_targets, target_named

TARGETS = {target.name: target for target in all_targets()}
SLOW = {
    "grammar": 60,
    "http": 20,
    "ollama-text": 60,
    "openai-chat": 60,
    "openai-text": 60,
    "schema": 60,
    "websocket": 60,
}
"""Targets of which fewer inputs are read here: a request takes a while."""
INPUTS = 150


@pytest.fixture(scope="module", autouse=True)
def the_node_of_the_targets_ends() -> Iterator[None]:
    """Other tests in this process see that no node is left."""
    yield
    end()


@pytest.fixture(scope="module")
def memory() -> MemoryWatch:
    return MemoryWatch()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", TARGETS)
def test_only_declared_errors_leave_a_decoder(name: str, memory: MemoryWatch) -> None:
    target = TARGETS[name]
    chance = random.Random(zlib.crc32(name.encode()))
    seeds = target.seeds()
    for seed in seeds:
        target.read(seed)  # real encodings are read, not refused
    for number in range(SLOW.get(name, INPUTS)):
        data = mutated(seeds[number % len(seeds)], target.form, chance, target.max_bytes)
        try:
            examine(target, data, memory, slower=5.0)
        except FoundError as exc:
            pytest.fail(f"{name}: {exc}: {data!r}")


@relaxed
@given(messages, st.integers(0, 1 << 30))
def test_a_mutated_message_of_any_type_is_read_or_refused(message: Message, seed: int) -> None:
    data = join_frames([bytes(frame) for frame in encode_message(message, 1)])
    examine(target_named("membership"), mutated(data, FRAMES, random.Random(seed), 1 << 16), MemoryWatch(), 5.0)


def test_what_breaks_its_promise_is_found(memory: MemoryWatch) -> None:
    """The control: an undeclared error, a long text, memory, time."""

    def read(data: bytes) -> None:
        match data:
            case b"error":
                raise KeyError("undeclared")
            case b"text":
                raise ValueError("x" * 5000)
            case b"memory":
                bytearray(64 << 20)
            case b"time":
                sum(range(50_000_000))
            case b"declared":
                raise ValueError("refused")

    target = Target("control", "words", read, (ValueError,), lambda: [b""], JSON, time_s=0.2)
    examine(target, b"declared", memory)
    for data in (b"error", b"text", b"memory", b"time"):
        with pytest.raises(FoundError):
            examine(target, data, memory)
