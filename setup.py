"""The one part of the build that pyproject.toml cannot say: the optional C extensions.

They are marked optional, so a machine without a C compiler installs the same package, computes the same numbers and
speaks the same protocol, only slower.
"""

from setuptools import setup

setup(
    cffi_modules=[
        "node/kernels/build_kernels.py:ffibuilder",
        "node/transport/build_pump.py:ffibuilder",
        "node/native/build_native.py:ffibuilder",
    ]
)
