"""What `kekahyde-node` calls: the interface on this terminal, until the user quits."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from tui.app import KekahydeApp
from tui.launcher import NodeLauncher
from tui.session import LogLine, NodeSession

SETTLED_AFTER_S = 1.5
"""By this time the first screen has been drawn."""


class ScreenHandler(logging.Handler):
    """Sends this program's log lines to the Logs screen, never to the terminal on which the interface draws."""

    def __init__(self, session: NodeSession) -> None:
        super().__init__(logging.INFO)
        self._session = session

    def emit(self, record: logging.LogRecord) -> None:
        self._session.log(LogLine(time.time(), record.levelname, record.name, record.getMessage()))


def show(data_dir: Path, node_command: Sequence[str] | None) -> str | None:
    """Show the interface for the node of a data directory; returns what went wrong, or None.

    Args:
        node_command: starts a headless node that prints its ready line; None: use only a running node.
    """
    return asyncio.run(_show(NodeLauncher(data_dir, node_command)))


def serve(data_dir: Path, node_command: Sequence[str] | None, port: int | None) -> str | None:
    """Serve the interface to a browser on this machine; returns what went wrong, or None."""
    from tui.web import serve_page

    return serve_page(data_dir, node_command, port)


def settle_memory() -> None:
    """Exclude the program's own objects from garbage collection: scanning them stopped the screen for 200 ms."""
    gc.collect()
    gc.freeze()


async def _show(launcher: NodeLauncher) -> str | None:
    app = KekahydeApp(launcher)
    logging.getLogger().handlers[:] = [ScreenHandler(app.session)]
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, app.exit)
    loop.call_later(SETTLED_AFTER_S, settle_memory)
    try:
        failure = await app.run_async()
        if app.return_code and not failure:
            return "the interface has failed; its last screen says why"
        return failure
    finally:
        await launcher.stop()
