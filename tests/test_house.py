"""Every package says what each of its files is for, no file is too long, and documents name only existing files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOUSES = ("protocol", "node", "tui", "scripts")
PACKAGES = sorted(path.parent for name in HOUSES for path in (ROOT / name).rglob("__init__.py"))
MAX_LINES = 400


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("package", PACKAGES, ids=relative)
def test_a_package_names_its_files(package: Path) -> None:
    text = (package / "__init__.py").read_text().split('"""')[1]
    listed = {
        word.strip(",/")
        for line in text.splitlines()
        for word in re.split(r" {2,}|\t", line.strip())[0].replace(",", " ").split()
    }
    files = {path.stem for path in package.glob("*.py") if path.stem not in ("__init__", "__main__")}
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    assert files | rooms <= listed, f"not described: {sorted((files | rooms) - listed)}"


@pytest.mark.parametrize("package", [*PACKAGES, ROOT / "tests"], ids=relative)
def test_no_file_is_a_hall(package: Path) -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in package.glob("*.py")}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_modules_that_are_started_by_name_exist() -> None:
    entries = [path for path in (ROOT / "scripts").iterdir() if path.is_file() and not path.suffix]
    files = [*entries, *(ROOT / "scripts").rglob("*.py"), *(ROOT / "tests").glob("*.py")]
    text = "\n".join(path.read_text() for path in files)
    started = set(re.findall(r"(?:-m |program\(\")(scripts(?:\.[a-z_]+)+)", text))
    assert len(started) > len(entries) / 2, "they are found"
    for module in started:
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"{module} is started and does not exist"


@pytest.mark.parametrize("document", ["README.md", "SPEC.md"])
def test_files_that_a_document_names_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    roots = (ROOT, *(ROOT / name for name in ("protocol", "node", "tui")))
    for name in re.findall(r"`([a-z_]+(?:/[a-z_0-9]+)+(?:\.py|/))`", text):
        assert any((root / name).exists() for root in roots), f"{document} names {name}"
