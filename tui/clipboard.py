"""Copies from a terminal with the desktop's or tmux's own tool, if there is one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Mapping

TIMEOUT_S = 2.0
_TOOLS = (
    ("WAYLAND_DISPLAY", ("wl-copy",)),
    ("DISPLAY", ("xclip", "-selection", "clipboard")),
    ("DISPLAY", ("xsel", "--clipboard", "--input")),
    ("", ("pbcopy",)),
    ("TMUX", ("tmux", "load-buffer", "-w", "-")),
)


def copy_tools(environment: Mapping[str, str]) -> list[tuple[str, ...]]:
    """The commands that can copy text here, best first."""
    return [tool for needs, tool in _TOOLS if (not needs or environment.get(needs)) and shutil.which(tool[0])]


async def copy_by_tool(text: str) -> bool:
    """Give the text to the first tool that accepts it; returns False if none does."""
    for tool in copy_tools(os.environ):
        process = None
        with contextlib.suppress(OSError, TimeoutError):
            process = await asyncio.create_subprocess_exec(
                *tool,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            async with asyncio.timeout(TIMEOUT_S):
                await process.communicate(text.encode())
            if process.returncode == 0:
                return True
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
    return False
