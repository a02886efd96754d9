"""Where a gateway listens."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct


class GatewayConfig(Struct, frozen=True):
    """Where a gateway listens."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int | None = None
    """None: the default port if the data directory is the default one; the port it had last if it is another; any
    port where that is taken."""
    tcp: bool = True
    """False: only the Unix socket."""
