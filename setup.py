"""The one part of the build that pyproject.toml cannot say: the optional C kernels.

The extension is marked optional, so a machine without a C compiler installs the same package and
computes the same numbers through the float64 path, only slower.
"""

from setuptools import setup

setup(cffi_modules=["node/kernels/build_kernels.py:ffibuilder"])
