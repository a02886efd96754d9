"""`audit`: look at everything that peers receive, and attack it as they could."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from node.audit.audit import audit_model
from node.audit.findings import Section
from node.audit.report import NOTES, as_json, failures, tables_of
from node.cli.narrate import configure_logging, say
from node.cli.options import DEFAULT_MODEL, EXIT_CODES, data_dir_option, threads_option, verbose_option
from node.errors import ConfigError, KekahydeError
from node.paths import DataDir
from node.store.library import Library

PIPED_WIDTH = 220


@click.command(epilog=EXIT_CODES)
@click.option(
    "--model",
    "models",
    multiple=True,
    default=(DEFAULT_MODEL,),
    show_default=True,
    help="Name or id of a model that is here. May be given several times.",
)
@click.option(
    "--long", "is_long", is_flag=True, help="Try everything that peers may be lent, with and without guesses."
)
@click.option(
    "--json",
    "report",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="File for the whole report, with every figure.",
)
@data_dir_option
@threads_option
@verbose_option
def audit(
    models: tuple[str, ...], is_long: bool, report: Path | None, data_dir: Path, threads: int | None, verbose: int
) -> None:
    """Look at everything that peers receive, and attack it as they could.

    Starts four nodes on this machine, asks prompts in `split` and `strict`, records every message that each node
    receives, and tries to learn the prompts from it: as each peer, as all peers of one role, and as all together. The
    same attacks must succeed where they get the plain rows. Nothing leaves this machine.

    The exit code is 1 if a claim does not hold.
    """
    configure_logging(verbose)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # the workers and their folder go with it
    if report is not None:
        _write(report, [])
    library = Library(DataDir.open(data_dir).models)
    sections: list[Section] = []

    def told(section: Section) -> None:
        """Tell how far it is; what an audit has found until it is stopped is in the report."""
        sections.append(section)
        say(f"{section.model}: {section.name}: {'FAIL' if section.failed else 'ok'}")
        if report is not None:
            _write(report, sections)

    for name in models:
        model = library.resolve(name)
        if not model.is_whole:
            raise ConfigError(
                f"the audit needs the whole model, and {model.name} is not complete here: pull it first"
            )
        with_metadata = is_long and not sections  # sizes and times are much the same with every model
        audit_model(model, library, is_long, with_metadata, threads, told)
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)
    for table in tables_of(sections):
        console.print(table)
    say(NOTES)
    for line in failures(sections):
        say(f"FAIL {line}")
    if failures(sections):
        raise ClaimError("a claim does not hold, or a control failed: see FAIL above")


def _write(path: Path, sections: Sequence[Section]) -> None:
    try:
        path.write_text(json.dumps(as_json(sections), indent=1))
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc.strerror}") from exc


class ClaimError(KekahydeError):
    """The audit found something."""
