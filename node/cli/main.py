"""The group of commands, and the one place where failures become exit codes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from node.cli import facts, run, serve, store
from node.cli.narrate import configure_logging, fail
from node.cli.options import (
    data_dir_option,
    json_option,
    model_option,
    network_options,
    threads_option,
    verbose_option,
)
from node.errors import KekahydeError
from protocol.multiaddr import Multiaddr

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--headless", is_flag=True, help="No terminal interface: lines on stdout and stderr only.")
@json_option
@data_dir_option
@network_options
@model_option
@threads_option
@verbose_option
@click.pass_context
def cli(
    context: click.Context,
    headless: bool,
    as_json: bool,
    data_dir: Path,
    listen: Multiaddr | None,
    bootstrap: tuple[Multiaddr, ...],
    model: str,
    threads: int | None,
    verbose: int,
) -> None:
    """Run AI prompts on other people's devices without those devices learning anything.

    Without a command this starts a node, which computes for its peers until it is stopped. The first line on
    stdout says where it can be reached.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    configure_logging(verbose)
    if context.invoked_subcommand is None:
        serve.serve(data_dir, listen, bootstrap, model, threads, as_json)


for command in (run.run, store.import_model, store.models, facts.identity, facts.version, facts.bench):
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> Any:
    """Entry point of `kekahyde-node`."""
    try:
        cli.main(arguments, prog_name="kekahyde-node", standalone_mode=False)
    except click.exceptions.Exit as exc:
        sys.exit(exc.exit_code)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (KeyboardInterrupt, click.Abort):
        fail("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has left; there is nobody to tell
        sys.exit(EXIT_FAILED)
    except KekahydeError as exc:
        fail(str(exc))
        sys.exit(EXIT_FAILED)
