"""Takes over messages that C has taken from a socket and left to Python."""

from __future__ import annotations

from typing import Any

import zmq

from node.native.library import Native
from protocol.envelope import Frame

_DONTWAIT = int(zmq.DONTWAIT)


def parts_taken(native: Native, mail: Any) -> list[Frame]:
    """The parts of a message that C has taken.

    Args:
        mail: `struct mail *`.
    """
    lib, calls = native.lib, native.calls
    sizes = [lib.mail_size(calls, mail, number) for number in range(lib.mail_num_parts(mail))]
    parts = [lib.mail_part(calls, mail, number) for number in range(len(sizes))]
    return [bytes(native.ffi.buffer(part, size)) for part, size in zip(parts, sizes, strict=True)]


def whole_message(native: Native, mail: Any, socket: Any) -> list[Frame]:
    """A message that was left: the parts that C has taken, and those that `socket` still has."""
    frames, has_more = parts_taken(native, mail), bool(native.lib.mail_has_more(mail))
    while has_more and socket is not None:
        frame = socket.recv(_DONTWAIT, copy=False)
        frames.append(frame.buffer)
        has_more = frame.more
    return frames


def property_of_sender(native: Native, mail: Any, name: str) -> str | None:
    """What libzmq knows of the sender of a message that was left."""
    value = native.lib.mail_property(native.calls, mail, name.encode())
    return None if value == native.ffi.NULL else str(native.ffi.string(value).decode())
