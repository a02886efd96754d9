"""The tables of SPEC.md that are made from the code: transitions and limits. `tests/test_spec.py` compares them."""

from __future__ import annotations

from node.execution import chunk
from node.gateway.http import limits as gateway_limits
from protocol import limits
from protocol.link import handshake
from protocol.pairing import states as pairing_states


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


def pairing_table() -> list[str]:
    """Rows of the section on pairing; the text describes what ends an attempt in every state."""
    endings = {pairing_states.PairState.ENDED}
    return [
        f"| {state.value} | {event.value} | {following.value} |"
        for state, events in pairing_states.TRANSITIONS.items()
        for event, following in events.items()
        if following not in endings or state is pairing_states.PairState.PAIRED
    ]


def limits_table() -> list[str]:
    """Rows of section 10: every constant of `protocol.limits`."""
    constants = {name: value for name, value in vars(limits).items() if name.isupper()}
    return [f"| {name} | {_shown(value)} |" for name, value in constants.items()]


def gateway_table() -> list[str]:
    """Rows of the section on the gateway: every constant of `node.gateway.http.limits`."""
    constants = {name: value for name, value in vars(gateway_limits).items() if name.isupper()}
    return [f"| {name} | {_shown(value)} |" for name, value in constants.items()]


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    for table in (handshake_table(), chunk_table(), pairing_table(), limits_table(), gateway_table()):
        print("\n".join(table), end="\n\n")
