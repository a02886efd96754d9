"""A model of which this device holds only the client's part, checks, and perhaps some units; peers hold the rest.

<models>/.partial/<model id>/manifest.cbor, client.safetensors, tokenizer.json, ...
<models>/.partial/<model id>/units/<sha256>.w8         units that are kept
<models>/.partial/<model id>/checks/<sha256>.check     what is left of the others
"""

from __future__ import annotations

from pathlib import Path

from node.errors import CorruptModelError
from node.model.unit import Unit, UnitRef
from node.store.check_file import check_bytes, check_path, has_check, read_check, write_check
from node.store.files import writing_to
from node.store.manifest import MANIFEST_FILE, UNITS_FOLDER
from node.store.partial import PartialModel, partial_path
from node.store.stored import StoredModel
from node.store.unit_file import load_unit, unit_path
from protocol.linear.field import FieldArithmetic
from protocol.linear.verification import RandomBytes, UnitCheck

CHECKS_FOLDER = "checks"


class ThinModel(StoredModel):
    """A model without the weights of its lent units. Safe to share between threads.

    Raises:
        CorruptModelError: of some unit there is neither its file nor its check.
    """

    def __init__(self, path: Path, name: str | None = None, verify: bool = True) -> None:
        super().__init__(path, name, verify)
        units = self.manifest.units
        lacking = [ref.name for ref in units if not (self.holds(ref) or self._checks_file(ref).exists())]
        if lacking:
            raise CorruptModelError(
                f"{len(lacking)} units of the model in {path} are missing, {lacking[0]} first: pull it again"
            )

    def holds(self, ref: UnitRef) -> bool:
        return unit_path(self.path / UNITS_FOLDER, ref.sha256).exists()

    def check_of(self, ref: UnitRef) -> UnitCheck | None:
        if not self._checks_file(ref).exists():
            return None  # it was kept from the start
        return read_check(self.path / CHECKS_FOLDER, ref)[1]

    def confirm(self, ref: UnitRef) -> None:
        if self._checks_file(ref).exists():
            read_check(self.path / CHECKS_FOLDER, ref)
        else:
            super().confirm(ref)

    @property
    def checks_bytes(self) -> int:
        return sum(check_bytes(ref) for ref in self.manifest.units if not self.holds(ref))

    def _open_unit(self, ref: UnitRef) -> Unit:
        if self.holds(ref):
            return super()._open_unit(ref)
        return read_check(self.path / CHECKS_FOLDER, ref, self._bias(ref))[0]

    def _checks_file(self, ref: UnitRef) -> Path:
        return check_path(self.path / CHECKS_FOLDER, ref.sha256)


def thin_path(models_dir: Path, model_id: str) -> Path | None:
    """The folder of a thin model; None if none was begun."""
    path = partial_path(models_dir, model_id)
    return path if (path / MANIFEST_FILE).exists() and (path / CHECKS_FOLDER).is_dir() else None


def is_reduced(model: PartialModel, ref: UnitRef) -> bool:
    """Whether the check of a unit exists and is intact."""
    return has_check(model.path / CHECKS_FOLDER, ref)


def reduce_unit(
    folder: Path, ref: UnitRef, arithmetic: FieldArithmetic, random_bytes: RandomBytes, keep: bool = False
) -> None:
    """Reads a unit of the model in `folder` once, keeps its check, and removes the file unless it is to be kept.

    Raises:
        CorruptModelError: the file is not the unit; it is removed, and nothing of it stays.
        ConfigError: the disk refuses.
    """
    path = unit_path(folder / UNITS_FOLDER, ref.sha256)
    try:
        unit = load_unit(folder / UNITS_FOLDER, ref)
    except CorruptModelError:
        path.unlink(missing_ok=True)
        raise
    with writing_to(folder):
        (folder / CHECKS_FOLDER).mkdir(mode=0o700, exist_ok=True)
        write_check(folder / CHECKS_FOLDER, unit, UnitCheck.of(unit.weights, arithmetic, random_bytes))
        if not keep:
            path.unlink()
