"""Builds the C kernels at install with cffi in API mode. It is optional: the install works without a compiler.

The declarations are read from kernels.c itself, so there is one list of exported functions.
"""

import re
from pathlib import Path
from typing import Final

from cffi import FFI

HERE: Final = Path(__file__).resolve().parent
COMPILE_ARGUMENTS: Final = (
    "-O3",
    "-std=c11",
    "-ffp-contract=off",  # with fused multiply-adds, levels would give different bits
    "-fno-strict-overflow",
    "-Wno-psabi",
    "-Wno-unknown-pragmas",
)
SHARED: Final = re.compile(r"^struct (?:layer|layer_unit|layer_block|layer_run) \{.*?^\};", re.MULTILINE | re.DOTALL)
"""Structures that Python fills."""
EXPORTED: Final = re.compile(r"^static ([^\n(]*\bkernel_\w+\([^)]*\))\s*\{", re.MULTILINE)


def declarations(source: str, layers: str) -> str:
    """The structures that Python fills, and the prototypes of the exported functions, as cffi reads them."""
    structures = ["struct team;", *SHARED.findall(layers)]
    return "\n".join([*structures, *(f"{prototype};" for prototype in EXPORTED.findall(source))])


def make_builder() -> FFI:
    """The extension module node.kernels._kernels."""
    ffibuilder = FFI()
    ffibuilder.cdef(declarations((HERE / "kernels.c").read_text(), (HERE / "layer.h").read_text()))
    ffibuilder.set_source(
        "node.kernels._kernels",
        '#include "kernels.c"',
        include_dirs=[str(HERE)],
        depends=[str(path) for path in sorted(HERE.glob("*.[ch]"))],
        libraries=["pthread"],
        extra_compile_args=list(COMPILE_ARGUMENTS),
        optional=True,
    )
    return ffibuilder


ffibuilder = make_builder()
