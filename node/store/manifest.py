"""The manifest lists all parts of a model by hash. The SHA-256 of its bytes is the model's id.

`manifest.cbor` is deterministic CBOR (RFC 8949, 4.2; a float in the schema is always encoded as a float, in the
shortest form that keeps its float64 value). Its schema, in CDDL:

    manifest = {
      "kekahyde": 1,                              ; version of this format
      "config": { tstr => config-value },         ; the fields of ModelConfig under their names
      "units": [ + [ layer: uint / null, kind: tstr, outputs: uint, inputs: uint, sha256: bstr .size 32 ] ],
      "files": { file-name => bstr .size 32 },    ; client.safetensors, tokenizer.json and what else was there
    }
    config-value = uint / float / bool / null / tstr / [ * uint ] / { tstr => tstr / float / uint }
    file-name = "client.safetensors" / "tokenizer.json" / "tokenizer_config.json" / "special_tokens_map.json" /
                "generation_config.json" / "chat_template.jinja"

Units are in the order in which they are applied: qkv, o, gate_up, down of layer 0, of layer 1, and so on, then head.
A reader accepts only this one encoding, so no model has two manifests.
"""

from __future__ import annotations

import hashlib
from typing import Any, Self

from msgspec import Struct

from node.errors import CorruptModelError
from node.model.config import LAYER_KINDS, ModelConfig, UnitKind
from node.model.unit import UnitRef
from protocol import cbor
from protocol.errors import RemoteProtocolError

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.cbor"
UNITS_FOLDER = "units"
MAX_MANIFEST_BYTES = 1 << 20
"""A unit takes about 60 bytes, so this is enough for four thousand layers."""
MAX_MANIFEST_ITEMS = MAX_MANIFEST_BYTES // 8
"""Most CBOR items in a manifest: a unit has six in its 60 bytes."""

CLIENT_FILE = "client.safetensors"
REQUIRED_FILES = (CLIENT_FILE, "tokenizer.json")
OPTIONAL_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
)


class Manifest(Struct, frozen=True):
    """The parts of a model."""

    config: ModelConfig
    units: tuple[UnitRef, ...]
    files: dict[str, bytes]
    """SHA-256 of every file beside the manifest, by name."""

    def encode(self) -> bytes:
        """The manifest's bytes."""
        return cbor.encode(
            {
                "kekahyde": FORMAT_VERSION,
                "config": self.config.to_mapping(),
                "units": [[ref.layer, ref.kind, ref.num_outputs, ref.num_inputs, ref.sha256] for ref in self.units],
                "files": self.files,
            }
        )

    @classmethod
    def decode(cls, data: bytes, where: str) -> Self:
        """Decodes the manifest in `data`; `where` names it in errors.

        Raises:
            CorruptModelError: `data` is not the one legal encoding of a manifest of this version.
        """
        try:
            value = cbor.decode(data, MAX_MANIFEST_BYTES, MAX_MANIFEST_ITEMS)
            version = value.get("kekahyde") if isinstance(value, dict) else None
            if type(version) is not int or version != FORMAT_VERSION:
                raise ValueError(f"it is not a manifest of version {FORMAT_VERSION}")
            if value.keys() != {"kekahyde", "config", "units", "files"} or not isinstance(value["config"], dict):
                raise ValueError("its fields are not those of a manifest")
            config = ModelConfig.from_mapping(value["config"])
            return cls(config, _units(config, value["units"]), _files(value["files"]))
        except (RemoteProtocolError, ValueError, KeyError) as exc:
            raise CorruptModelError(f"{where} cannot be used: {exc}; import the model again") from exc


def model_id_of(manifest_bytes: bytes) -> str:
    """The model id: lower-case hex SHA-256 of the manifest's bytes."""
    return hashlib.sha256(manifest_bytes).hexdigest()


def unit_places(config: ModelConfig) -> list[tuple[int | None, UnitKind]]:
    """Layer and kind of every unit of an architecture, in order."""
    places: list[tuple[int | None, UnitKind]] = [
        (layer, kind) for layer in range(config.num_layers) for kind in LAYER_KINDS
    ]
    return [*places, (None, "head")]


def _units(config: ModelConfig, entries: Any) -> tuple[UnitRef, ...]:
    """The unit list; raises ValueError unless it has exactly the units of the architecture."""
    places = unit_places(config)
    if not isinstance(entries, list) or len(entries) != len(places):
        raise ValueError(f"its unit list must have {len(places)} entries")
    refs = []
    for (layer, kind), entry in zip(places, entries, strict=True):
        expected = [layer, kind, *config.unit_shape(kind)]
        stated = entry[:-1] if isinstance(entry, list) else None
        if stated != expected or list(map(type, stated)) != list(map(type, expected)) or not _is_hash(entry[-1]):
            raise ValueError(f"its entry for unit {kind} of layer {layer} is not {expected} and a hash")
        refs.append(UnitRef(layer, kind, *config.unit_shape(kind), entry[-1]))
    return tuple(refs)


def _files(entries: Any) -> dict[str, bytes]:
    """The file hashes; raises ValueError unless all names are ones that an import writes (never a path)."""
    if not isinstance(entries, dict) or not all(_is_hash(value) for value in entries.values()):
        raise ValueError("its files are not a map of hashes")
    unknown = entries.keys() - {*REQUIRED_FILES, *OPTIONAL_FILES}
    missing = set(REQUIRED_FILES) - entries.keys()
    if unknown or missing:
        raise ValueError(f"its files must not hold {sorted(map(str, unknown))} and must hold {sorted(missing)}")
    return entries


def _is_hash(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) == 32
