"""What the interface remembers from one start to the next: the user's choices, no prompts and no answers.

<data dir>/interface.json, mode 0600   {"privacy", "model", "theme", "system", "temperature", "max_tokens"}
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tui.private_file import write_private
from tui.snapshot import Fields

logger = logging.getLogger(__name__)

FILE = "interface.json"
MAX_FILE_BYTES = 1 << 20
MAX_SYSTEM_CHARACTERS = 8000
MAX_TEMPERATURE = 2.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The choices of a user; an empty one is the node's own."""

    privacy: str = ""
    model: str = ""
    theme: str = ""
    system: str = ""
    """The system prompt of a chat."""
    temperature: float | None = None
    max_tokens: int | None = None

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Settings:
        """Settings from a JSON object; a field of another kind counts as absent."""
        fields = Fields(value)
        temperature, max_tokens = fields.maybe_number("temperature"), fields.maybe_number("max_tokens")
        return cls(
            fields.text("privacy"),
            fields.text("model"),
            fields.text("theme"),
            fields.text("system")[:MAX_SYSTEM_CHARACTERS],
            temperature if temperature is not None and 0 <= temperature <= MAX_TEMPERATURE else None,
            int(max_tokens) if max_tokens is not None and max_tokens >= 1 else None,
        )

    def sampling(self) -> dict[str, Any]:
        """The fields of a request that these settings set."""
        fields = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return {name: value for name, value in fields.items() if value is not None}


class SettingsFile:
    """The settings of one data directory. A file that cannot be read or written is reported in the log; the interface
    goes on with what it has."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE
        self.settings = self._read()

    def change(self, **fields: Any) -> None:
        """Change fields and store the result."""
        changed = replace(self.settings, **fields)
        if changed == self.settings:
            return
        self.settings = changed
        try:
            write_private(self._path, json.dumps(asdict(changed), ensure_ascii=False))
        except OSError as exc:
            logger.warning("%s could not be written: %s; your choices last until you quit", self._path, exc.strerror)

    def _read(self) -> Settings:
        try:
            with self._path.open("rb") as file:
                value = json.loads(file.read(MAX_FILE_BYTES))
        except FileNotFoundError:
            return Settings()
        except (OSError, ValueError) as exc:
            logger.warning("%s cannot be read (%s): the interface begins with its own choices", self._path, exc)
            return Settings()
        return Settings.of(value if isinstance(value, dict) else {})
