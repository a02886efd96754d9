"""Builds the pump at install: cffi in API mode, optional; without it `portable_pump` serves, slower."""

import re
from pathlib import Path
from typing import Final

from cffi import FFI

HERE: Final = Path(__file__).resolve().parent
EXPORTED: Final = re.compile(r"^static ([^\n(]*\bpump_\w+\([^)]*\))\s*\{", re.MULTILINE)


def make_builder() -> FFI:
    """The extension module node.transport._pump; its declarations are read from pump.c itself."""
    source = (HERE / "pump.c").read_text()
    ffibuilder = FFI()
    ffibuilder.cdef("struct pump;\n" + "\n".join(f"{prototype};" for prototype in EXPORTED.findall(source)))
    ffibuilder.set_source(
        "node.transport._pump", source, libraries=["pthread"], extra_compile_args=["-O2", "-std=c11"], optional=True
    )
    return ffibuilder


ffibuilder = make_builder()
