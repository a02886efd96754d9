"""Bodies that say something illegal are refused, field by field."""

from typing import Any

import pytest
from drawn_messages import BINDING, MAX_HEADER, framed

from protocol.codec import decode_message
from protocol.envelope import (
    KEY_BODY,
    KEY_BUFFERS,
    KEY_ID,
    KEY_TYPE,
    DType,
)
from protocol.errors import RemoteProtocolError
from protocol.linear.messages import Linear, LinearResult
from protocol.link.hello import Hello
from protocol.message import MessageType

HELLO_BODY = {0: bytes(32), 1: [1], 2: "a", 3: [], 4: 1, 5: [], 6: 1, 7: [1], 8: bytes(16)}
LINEAR_BODY = {0: BINDING.as_list()}
ENTRY = [int(DType.U32), [2, 3], 24]


def with_binding(index: int, value: object) -> dict[int, Any]:
    values: list[Any] = BINDING.as_list()
    values[index] = value
    return {0: values}


BAD_BODIES: list[tuple[int, dict[int, Any], list[Any], list[bytes]]] = [
    *[(MessageType.HELLO, {k: v for k, v in HELLO_BODY.items() if k != key}, [], []) for key in HELLO_BODY],
    *[(MessageType.HELLO, {**HELLO_BODY, key: None}, [], []) for key in HELLO_BODY],
    *[
        (kind, {**HELLO_BODY, key: value}, [], [])
        for kind in (MessageType.HELLO, MessageType.HELLO_OK)
        for key, value in [
            (0, bytes(31)),
            (0, bytes(33)),
            (0, "k" * 32),
            (1, [True]),
            (1, [-1]),
            (1, [65536]),
            (1, [1] * 17),
            (2, "a" * 65),
            (2, "line\nbreak"),
            (2, "\x1b[31m"),
            (2, "\u202eabc"),
            (3, ["a"] * 9),
            (3, ["a" * 257]),
            (3, [1]),
            (4, True),
            (4, 65536),
            (4, -1),
            (5, [[bytes(32), []]] * 9),
            (5, [[bytes(32)]]),
            (5, [[bytes(31), []]]),
            (5, [[bytes(32), [bytes(31)]]]),
            (5, [[bytes(32), [b""] * 1025]]),
            (5, [5]),
            (6, (1 << 62) + 1),
            (6, 1.0),
            (7, [1] * 17),
            (8, bytes(15)),
        ]
    ],
    (MessageType.PONG, {}, [], []),
    (MessageType.PONG, {0: True}, [], []),
    (MessageType.PONG, {0: (1 << 31) + 1}, [], []),
    (MessageType.GOAWAY, {0: b"bytes"}, [], []),
    (MessageType.GOAWAY, {0: "x" * 257}, [], []),
    (MessageType.CANCEL, {0: -1}, [], []),
    (MessageType.ERROR, {0: 1}, [], []),
    (MessageType.ERROR, {0: 65536, 1: ""}, [], []),
    # A share request
    (MessageType.LINEAR, LINEAR_BODY, [], []),
    (MessageType.LINEAR, {}, [ENTRY], [bytes(24)]),
    (MessageType.LINEAR, {0: BINDING.as_list()[:8]}, [ENTRY], [bytes(24)]),
    (MessageType.LINEAR, {0: [*BINDING.as_list(), 0]}, [ENTRY], [bytes(24)]),
    (MessageType.LINEAR, {**LINEAR_BODY, 1: bytes(32)}, [ENTRY], [bytes(24)]),
    (MessageType.LINEAR, LINEAR_BODY, [[4, [2, 3], 24]], [bytes(24)]),
    (MessageType.LINEAR, LINEAR_BODY, [[8, [2, 3], 24]], [bytes(24)]),
    (MessageType.LINEAR, LINEAR_BODY, [[5, [6], 24]], [bytes(24)]),
    (MessageType.LINEAR, LINEAR_BODY, [[5, [2, 3, 1], 24]], [bytes(24)]),
    (MessageType.LINEAR, LINEAR_BODY, [[5, [3, 2], 24]], [bytes(24)]),
    (MessageType.LINEAR, LINEAR_BODY, [ENTRY, ENTRY], [bytes(24), bytes(24)]),
    (MessageType.LINEAR, LINEAR_BODY, [[5, [2, 65537], 8 * 65537]], [bytes(8 * 65537)]),
    *[
        (MessageType.LINEAR, with_binding(index, value), [ENTRY], [bytes(24)])
        for index, value in [
            (0, bytes(15)),
            (0, None),
            (1, -1),
            (1, True),
            (2, bytes(31)),
            (3, bytes(33)),
            (4, 0),
            (4, 3),
            (4, True),
            (5, -1),
            (5, 2),
            (6, 0),
            (6, 513),
            (6, 2.0),
            (7, -1),
            (7, 1),
            (8, 0),
            (8, 2049),
        ]
    ],
    # A pad request
    (MessageType.LINEAR, with_binding(4, 1), [], []),
    (MessageType.LINEAR, {**with_binding(4, 1), 1: bytes(31)}, [], []),
    (MessageType.LINEAR, {**with_binding(4, 1), 1: bytes(32)}, [ENTRY], [bytes(24)]),
    # A result
    (MessageType.LINEAR_RESULT, {0: bytes(32), 1: 0}, [], []),
    (MessageType.LINEAR_RESULT, {0: bytes(31), 1: 0}, [ENTRY], [bytes(24)]),
    (MessageType.LINEAR_RESULT, {0: bytes(32), 1: -1}, [ENTRY], [bytes(24)]),
    (MessageType.LINEAR_RESULT, {0: bytes(32), 1: 0}, [[4, [2, 3], 24]], [bytes(24)]),
    (MessageType.LINEAR_RESULT, {0: bytes(32), 1: 0}, [[5, [6], 24]], [bytes(24)]),
    (MessageType.LINEAR_RESULT, {0: bytes(32), 1: 0}, [ENTRY, ENTRY], [bytes(24), bytes(24)]),
]


@pytest.mark.parametrize("case", BAD_BODIES, ids=lambda case: f"{MessageType(case[0]).name}-{case[1]}"[:60])
def test_a_bad_body_is_refused(case: tuple[int, dict[int, Any], list[Any], list[bytes]]) -> None:
    kind, body, described, buffers = case
    header: dict[int, Any] = {KEY_TYPE: int(kind), KEY_ID: 1, KEY_BODY: body}
    if described:
        header[KEY_BUFFERS] = described
    with pytest.raises(RemoteProtocolError):
        decode_message([*framed(header), *buffers], MAX_HEADER)


def test_the_bodies_that_were_spoilt_are_good_ones() -> None:
    header = {KEY_TYPE: 1, KEY_ID: 1, KEY_BODY: HELLO_BODY}
    assert isinstance(decode_message(framed(header), MAX_HEADER).message, Hello)
    header = {KEY_TYPE: 32, KEY_ID: 1, KEY_BODY: LINEAR_BODY, KEY_BUFFERS: [ENTRY]}
    assert isinstance(decode_message([*framed(header), bytes(24)], MAX_HEADER).message, Linear)
    header = {KEY_TYPE: 32, KEY_ID: 1, KEY_BODY: {**with_binding(4, 1), 1: bytes(32)}}
    assert isinstance(decode_message(framed(header), MAX_HEADER).message, Linear)
    header = {KEY_TYPE: 33, KEY_ID: 1, KEY_BODY: {0: bytes(32), 1: 0}, KEY_BUFFERS: [ENTRY]}
    assert isinstance(decode_message([*framed(header), bytes(24)], MAX_HEADER).message, LinearResult)
