"""`--thin`: models of which this device keeps no weights of lent units."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from pathlib import Path

from node.kernels import select_kernels
from node.model.config import UnitKind
from node.model.unit import UnitRef
from node.paths import DataDir
from node.store.importer import ImportProgress
from node.store.library import Library
from node.store.thin import reduce_unit


def library_of(
    directory: DataDir, lent: Collection[UnitKind], progress: Callable[[ImportProgress], None] | None = None
) -> Library:
    """The models of a data directory; an import into it keeps no weights of the lent kinds of units."""
    if not lent:
        return Library(directory.models, progress)
    kernels = select_kernels(None)

    def reduce(folder: Path, ref: UnitRef) -> None:
        if ref.kind in lent:
            reduce_unit(folder, ref, kernels, secrets.token_bytes)

    return Library(directory.models, progress, reduce)
