"""A copy of this repository in which faults are planted; the repository itself is never changed."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.harness.programs import ROOT
from scripts.mutations.mutation import Mutant, planted_in

COPIED = ("node", "protocol", "tui", "scripts", "tests", "pyproject.toml", "setup.py", "README.md", "SPEC.md")
"""What tests need, with the compiled parts and the bytecode in it."""
BUILD_S = 600.0


class BuildError(Exception):
    """The compiled parts of a copy could not be built."""


class Tree:
    """The copy; a context manager that removes it at the end."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._temporary = tempfile.TemporaryDirectory(prefix="kek-mutants-")
        self.folder = Path(self._temporary.name).resolve() / "copy"
        self.folder.mkdir()
        left_out = shutil.ignore_patterns(".*")
        for name in COPIED:
            source = root / name
            if source.is_dir():
                shutil.copytree(source, self.folder / name, ignore=left_out)
            else:
                shutil.copy2(source, self.folder / name)

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._temporary.cleanup()

    @contextmanager
    def with_fault(self, mutant: Mutant) -> Iterator[None]:
        """The copy with a fault in it, until the block ends.

        Raises:
            ValueError: its text does not fit.
            BuildError: it cannot be compiled.
        """
        before = {edit.file: (self.folder / edit.file).read_text() for edit in mutant.edits}
        try:
            for edit in mutant.edits:
                self._write(edit.file, planted_in((self.folder / edit.file).read_text(), edit))
            if mutant.builds:
                self._build()
            yield
        finally:
            for file, text in before.items():
                self._write(file, text)
            if mutant.builds:
                self._take_built_parts()

    def _write(self, file: str, text: str) -> None:
        path = self.folder / file
        path.write_text(text)
        if path.suffix == ".py":  # bytecode is told from stale bytecode by whole seconds and size, which may be equal
            Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)

    def _build(self) -> None:
        for part in self.folder.glob("node/*/*.so"):
            part.unlink()
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        built = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=BUILD_S, check=False)
        if built.returncode or not list(self.folder.glob("node/kernels/*.so")):
            raise BuildError(built.stderr.strip().rpartition("\n")[2])

    def _take_built_parts(self) -> None:
        for part in self._root.glob("node/*/*.so"):
            shutil.copy2(part, self.folder / part.relative_to(self._root))
