"""Builds direct.c and shares.c at install: cffi in API mode, optional; without it both ends work, slower.

The declarations are read from the sources themselves.
"""

import re
from pathlib import Path
from typing import Final

from cffi import FFI

HERE: Final = Path(__file__).resolve().parent
SOURCES: Final = ("calls.h", "direct.c", "shares.c")
SHARED: Final = re.compile(
    r"^(?:struct (?:calls|way|answer|continuation|share_kind|share_forms|visit)|enum (?:outcome|visited)) \{.*?\};",
    re.MULTILINE | re.DOTALL,
)
"""What Python fills and reads."""
EXPORTED: Final = re.compile(r"^static ([^\n(]*\b(?:mail|direct|shares)_\w+\([^)]*\))\s*\{", re.MULTILINE)


def make_builder() -> FFI:
    """The extension module node.native._native."""
    source = "\n".join((HERE / name).read_text() for name in SOURCES)
    shared = [re.sub(r"/\*.*?\*/", "", part, flags=re.DOTALL) for part in SHARED.findall(source)]
    ffibuilder = FFI()
    opaque = ["struct mail;", "struct direct;", "struct shares;"]
    ffibuilder.cdef("\n".join([*opaque, *shared, *(f"{one};" for one in EXPORTED.findall(source))]))
    ffibuilder.set_source(
        "node.native._native",
        '#include "direct.c"\n#include "shares.c"',
        include_dirs=[str(HERE)],
        depends=[str(HERE / name) for name in SOURCES],
        extra_compile_args=["-O2", "-std=c11"],
        optional=True,
    )
    return ffibuilder


ffibuilder = make_builder()
