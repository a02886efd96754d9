"""Where a gateway listens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Where a gateway listens."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int | None = None
    """None: the default port where it is free and the data directory is the default one, else any free one."""
    tcp: bool = True
    """False: the Unix socket alone."""
