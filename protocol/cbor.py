"""CBOR as Kekahyde reads and writes it: one strict profile of RFC 8949.

Reading refuses tags, duplicate keys, indefinite lengths, trailing bytes, deep nesting and any encoding
that is not the deterministic one, so two readers never see two meanings in the same bytes.
Keys of maps are integers in messages and short text (below 24 bytes) in manifests: the first byte of such a key holds
its size, so length-first and bytewise key order agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import cbor2

from protocol.errors import LocalProtocolError, RemoteProtocolError

MAX_DEPTH = 8


def _refuse(*_args: object, **_kwargs: object) -> NoReturn:
    raise RemoteProtocolError("CBOR tags are not allowed")


class _RefuseEveryTag(Mapping[int, Any]):
    """cbor2 decodes its built-in tags without asking `tag_hook`; this mapping answers for all of them."""

    def __getitem__(self, key: int) -> Any:
        return _refuse

    def __contains__(self, key: object) -> bool:
        return True

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def get(self, key: int, default: Any = None) -> Any:
        return _refuse


_NO_TAGS = _RefuseEveryTag()


def encode(value: object) -> bytes:
    """Deterministic CBOR of maps with integer keys, lists, ints, bytes, text, booleans, floats and None."""
    try:
        return cbor2.dumps(value, canonical=True)
    except (cbor2.CBOREncodeError, TypeError, ValueError) as exc:
        raise LocalProtocolError(f"a value cannot be encoded: {exc}") from exc


def decode(data: bytes, max_bytes: int) -> Any:
    """Value of `data`, at most `max_bytes` long; raises RemoteProtocolError for anything but our profile."""
    if len(data) > max_bytes:
        raise RemoteProtocolError(f"{len(data)} bytes of CBOR, at most {max_bytes} are read")
    try:
        value = cbor2.loads(
            data,
            max_depth=MAX_DEPTH,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            semantic_decoders=_NO_TAGS,
            tag_hook=_refuse,
        )
        again = cbor2.dumps(value, canonical=True)
    except RemoteProtocolError:
        raise
    except (
        Exception
    ) as exc:  # cbor2 raises its own, Unicode, Value, Recursion and Memory errors: all are the sender's fault
        raise RemoteProtocolError(f"not readable as CBOR: {type(exc).__name__}") from exc
    if again != data:
        raise RemoteProtocolError("CBOR that is not in its deterministic form")
    return value
