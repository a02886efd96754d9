"""Finds the functions that the C ends of an exchange call."""

from __future__ import annotations

import ctypes
import sys
from importlib import import_module
from typing import Any

import zmq
from msgspec import Struct

from node.kernels.interface import NativeFunctions
from node.kernels.layers import NUM_UNITS


class Native(Struct, frozen=True):
    """The extension, and the functions that it calls."""

    ffi: Any
    lib: Any
    calls: Any
    """`struct calls *`."""


def native(functions: NativeFunctions | None) -> Native | None:
    """What this machine has; None where it lacks anything that this needs."""
    if functions is None or sys.byteorder != "little":
        return None
    try:
        library: Any = import_module("node.native._native")
        return Native(library.ffi, library.lib, _calls_of(library.ffi, functions))
    except (ImportError, AttributeError, OSError):
        return None


def _calls_of(ffi: Any, functions: NativeFunctions) -> Any:
    """The functions of libzmq and of libsodium as the Python packages have loaded them, and those of the kernels.

    Raises:
        AttributeError: one is not there.
        ImportError: a package has another form.
    """
    backend: Any = import_module("zmq.backend.cython._zmq")
    library = ctypes.CDLL(backend.__file__)  # it was loaded with libzmq, which is searched for a name, too
    sodium = import_module("nacl._sodium")
    calls = ffi.new("struct calls *")

    def fill(name: str, address: int) -> None:
        setattr(calls, name, ffi.cast(ffi.typeof(getattr(calls, name)), address))

    for name, function in (
        ("message_init", library.zmq_msg_init),
        ("message_init_size", library.zmq_msg_init_size),
        ("message_receive", library.zmq_msg_recv),
        ("message_send", library.zmq_msg_send),
        ("message_close", library.zmq_msg_close),
        ("message_more", library.zmq_msg_more),
        ("message_size", library.zmq_msg_size),
        ("message_data", library.zmq_msg_data),
        ("message_gets", library.zmq_msg_gets),
        ("get_option", library.zmq_getsockopt),
    ):
        fill(name, ctypes.cast(function, ctypes.c_void_p).value or 0)
    fill("fast_sha256", _libcrypto_sha256())
    sha256 = sodium.ffi.addressof(sodium.lib, "crypto_hash_sha256")
    fill("sha256", int(sodium.ffi.cast("uintptr_t", sha256)))
    fill("linear_field", functions.linear_field)
    fill("dots_agree", functions.dots_agree)
    fill("merge", functions.merge)
    fill("share", functions.share)
    fill("layer", functions.layer)
    fill("team", functions.team)
    calls.option_events, calls.poll_in = int(zmq.EVENTS), int(zmq.POLLIN)
    calls.do_not_wait, calls.send_more = int(zmq.DONTWAIT), int(zmq.SNDMORE)
    calls.level, calls.layer_done = functions.level, NUM_UNITS
    return calls


def _libcrypto_sha256() -> int:
    """`SHA256` of the libcrypto that Python's hashes come from; 0 where it is not to be found."""
    try:
        hashes: Any = import_module("_hashlib")
        return ctypes.cast(ctypes.CDLL(hashes.__file__).SHA256, ctypes.c_void_p).value or 0
    except (ImportError, AttributeError, OSError, TypeError):
        return 0
