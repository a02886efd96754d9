"""Builds direct.c at install: cffi in API mode, optional; without it every answer goes the usual way, slower."""

import re
from pathlib import Path
from typing import Final

from cffi import FFI

HERE: Final = Path(__file__).resolve().parent
SHARED: Final = re.compile(r"^(?:struct (?:calls|answer)|enum outcome) \{.*?\};", re.MULTILINE | re.DOTALL)
EXPORTED: Final = re.compile(r"^static ([^\n(]*\bdirect_\w+\([^)]*\))\s*\{", re.MULTILINE)


def make_builder() -> FFI:
    """The extension module node.execution._direct; its declarations are read from direct.c itself."""
    source = (HERE / "direct.c").read_text()
    ffibuilder = FFI()
    shared = [re.sub(r"/\*.*?\*/", "", part, flags=re.DOTALL) for part in SHARED.findall(source)]
    ffibuilder.cdef("\n".join(["struct direct;", *shared, *(f"{one};" for one in EXPORTED.findall(source))]))
    ffibuilder.set_source("node.execution._direct", source, extra_compile_args=["-O2", "-std=c11"], optional=True)
    return ffibuilder


ffibuilder = make_builder()
