"""`python -m tui DATA_DIR`: the interface of a running node; each session in the browser is one such process."""

from __future__ import annotations

import sys
from pathlib import Path

from tui.main import show

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tui DATA_DIR")
    failure = show(Path(sys.argv[1]), None)
    if failure:
        sys.exit(f"error: {failure}")
