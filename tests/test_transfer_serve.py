"""Serving pieces: in turn, within credit, and out of the way of computing."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.limits import MAX_OPEN_PIECES, PIECE_BYTES
from protocol.transfer.serve import PieceJob, ServeConfig, Serving


def job(route: str, message_id: int, num_bytes: int = PIECE_BYTES) -> PieceJob[str]:
    return PieceJob(route, message_id, bytes(32), message_id, num_bytes)


def take(serving: Serving[str], count: int, now: float = 0.0) -> list[str]:
    """Routes of the next pieces."""
    taken = [serving.next(now) for _ in range(count)]
    return [piece.route for piece in taken if piece is not None]


def test_connections_are_served_in_turn_whatever_they_ask() -> None:
    serving: Serving[str] = Serving()
    for route, count in (("greedy", 30), ("modest", 2), ("late", 2)):
        serving.credit(route, 100 * PIECE_BYTES)
        assert all(serving.ask(job(route, index)) for index in range(count))
    assert take(serving, 7) == ["greedy", "modest", "late", "greedy", "modest", "late", "greedy"]


def test_no_more_waits_than_the_specification_allows() -> None:
    serving: Serving[str] = Serving()
    assert all(serving.ask(job("a", index)) for index in range(MAX_OPEN_PIECES))
    assert not serving.ask(job("a", 99)) and serving.ask(job("b", 0))
    serving.cancel("a", 3)
    assert serving.ask(job("a", 99))
    serving.cancel("nobody", 0)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("ask"), st.sampled_from("ab"), st.integers(1, PIECE_BYTES)),
            st.tuples(st.just("credit"), st.sampled_from("ab"), st.integers(0, 8 * PIECE_BYTES)),
            st.tuples(st.just("next"), st.just(""), st.just(0)),
            st.tuples(st.just("cancel"), st.sampled_from("ab"), st.integers(0, 20)),
        ),
        max_size=60,
    )
)
@settings(deadline=None)
def test_never_a_byte_without_credit_and_everything_in_the_end(steps: list[tuple[str, str, int]]) -> None:
    serving: Serving[str] = Serving()
    credit, sent, asked = {"a": 0, "b": 0}, {"a": 0, "b": 0}, {"a": 0, "b": 0}
    for number, (step, route, amount) in enumerate(steps):
        match step:
            case "ask":
                if serving.ask(job(route, number, amount)):
                    asked[route] += amount
            case "credit":
                serving.credit(route, amount)
                credit[route] = max(credit[route], amount)
            case "cancel":
                serving.cancel(route, 10_000 + amount)
            case _:
                if (piece := serving.next(0.0)) is not None:
                    sent[piece.route] += piece.num_bytes
        assert all(sent[known] <= credit[known] for known in sent)
    for route in "ab":
        serving.credit(route, 1 << 40)
    while (piece := serving.next(0.0)) is not None:
        sent[piece.route] += piece.num_bytes
    assert sent == asked and serving.wait_s(0.0) is None


def test_while_chunks_are_computed_pieces_are_held_to_a_rate() -> None:
    config = ServeConfig(busy_bytes_per_s=10.0 * PIECE_BYTES, busy_s=0.5)
    serving: Serving[str] = Serving(config)
    serving.credit("a", 1 << 40)
    for index in range(MAX_OPEN_PIECES):
        serving.ask(job("a", index))
    assert len(take(serving, 5, now=9.0)) == 5, "nothing is computed: as fast as it goes"
    sent, now = 0, 10.0
    while now < 11.0:
        serving.computed(now)
        sent += len(take(serving, 1, now))
        wait_s = serving.wait_s(now)
        assert wait_s is not None and wait_s <= 0.2
        now += 0.01
    assert 9 <= sent <= 12, f"{sent} pieces in a busy second, 10 are allowed"
    assert len(take(serving, 5, now=12.0)) == 5, "and again as fast as it goes"


def test_a_connection_that_is_gone_leaves_nothing_behind() -> None:
    serving: Serving[str] = Serving(ServeConfig(max_connections=2))
    for route in "abc":
        serving.credit(route, PIECE_BYTES)
        serving.ask(job(route, 0))
    assert serving.waiting == ["b", "c"], "the one that was served longest ago is forgotten"
    serving.gone("b")
    assert take(serving, 3) == ["c"]
