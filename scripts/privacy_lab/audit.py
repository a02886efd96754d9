"""`scripts/audit`: the long form of `kekahyde-node audit`, with the built-in model and with SmolLM2.

All sessions, and what metadata tells of 54 texts, with the built-in model; all sessions again with SmolLM2, which is
fetched if it is not here. It takes about an hour on two cores. Options are those of the command.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from node.cli import main as command
from node.store.library import BUILT_IN_NAME
from scripts.harness.real_models import SMOLLM2, link_models, smollm2_models


def main() -> None:
    """Run the command on a data directory that has both models."""
    with tempfile.TemporaryDirectory(prefix="kekahyde-audit-") as folder:
        link_models(smollm2_models(), Path(folder))
        models = [part for name in (BUILT_IN_NAME, SMOLLM2) for part in ("--model", name)]
        command(["audit", "--long", "--data-dir", folder, *models, *sys.argv[1:]])


if __name__ == "__main__":
    main()
