"""A real terminal for tests: tmux on a socket of its own, keys sent, the screen read."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import pytest

DEADLINE_S = 90.0
LEFT = "exit code"
needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed: apt-get install tmux")


class Terminal:
    """One program in one terminal; a context manager that ends both."""

    def __init__(self, folder: Path, size: tuple[int, int], command: Sequence[str], env: Mapping[str, str]) -> None:
        self._tmux = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        self._size = size
        self._command = f"{shlex.join(command)}; echo {LEFT} $?; read _"
        # COLUMNS and LINES, which pytest's workers set, would count for more than the terminal's own size.
        left_out = ("TMUX", "NO_COLOR", "COLUMNS", "LINES")
        self._env = {key: value for key, value in env.items() if key not in left_out}
        self._kept = Path(os.environ["KEKAHYDE_SCREENS"]) if "KEKAHYDE_SCREENS" in os.environ else None

    def __enter__(self) -> Self:
        width, height = self._size
        start = ["new-session", "-d", "-x", str(width), "-y", str(height), self._command]
        subprocess.run([*self._tmux, *start], check=True, env={**self._env, "TERM": "xterm-256color"})
        return self

    def __exit__(self, *_exc: object) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)

    def _ask(self, *arguments: str) -> str:
        asked = subprocess.run([*self._tmux, *arguments], check=True, capture_output=True, text=True)
        return asked.stdout

    @property
    def screen(self) -> str:
        return self._ask("capture-pane", "-p")

    @property
    def exit_code(self) -> int | None:
        """Of the program, once it has given the screen back; the shell that ran it tells."""
        told = re.search(rf"{LEFT} (\d+)", self.screen)
        return int(told[1]) if told else None

    def keys(self, *names: str) -> None:
        self._ask("send-keys", *names)

    def type(self, text: str) -> None:
        self._ask("send-keys", "-l", text)

    def until(self, condition: Callable[[str], object]) -> str:
        """Wait until it holds of the screen; fails with the screen where it never does."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition(screen := self.screen):
            assert time.monotonic() < deadline, f"it never came to hold; the screen was\n{screen}"
            time.sleep(0.1)
        return screen

    def sees(self, *texts: str) -> str:
        """Wait until all these texts are visible."""
        return self.until(lambda screen: all(text in screen for text in texts))

    def keep(self, name: str) -> None:
        """Keep the screen as a file where the variable KEKAHYDE_SCREENS names a folder."""
        if self._kept is not None:
            self._kept.mkdir(parents=True, exist_ok=True)
            (self._kept / f"{name}.txt").write_text(self.screen)
