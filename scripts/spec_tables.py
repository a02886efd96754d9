"""The tables of SPEC.md that are drawn from the code: transitions and limits. `tests/test_spec.py` compares them."""

from __future__ import annotations

from node.execution import chunk
from protocol import handshake, limits


def handshake_table() -> list[str]:
    """Rows of section 6."""
    return [
        f"| {side.value} | {state.value} | {event.value} | {following.value} |"
        for side, states in handshake.TRANSITIONS.items()
        for state, events in states.items()
        for event, following in events.items()
    ]


def chunk_table() -> list[str]:
    """Rows of section 9."""
    return [
        f"| {state.value} | {event.value} | {following.value} |"
        for state, events in chunk.TRANSITIONS.items()
        for event, following in events.items()
    ]


def limits_table() -> list[str]:
    """Rows of section 10: every constant of `protocol.limits`."""
    constants = {name: value for name, value in vars(limits).items() if name.isupper()}
    return [f"| {name} | {_shown(value)} |" for name, value in constants.items()]


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    for table in (handshake_table(), chunk_table(), limits_table()):
        print("\n".join(table), end="\n\n")
