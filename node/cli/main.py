"""The group of commands, and the only place where failures become exit codes."""

from __future__ import annotations

import gc
import io
import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import click
from click.core import ParameterSource

from node.cli.lazy import LazyGroup, no_collection
from node.cli.narrate import configure_logging, drop, fail
from node.cli.options import (
    data_dir_option,
    discovery_options,
    draft_option,
    gateway_options,
    json_option,
    lend_option,
    memory_option,
    model_option,
    name_option,
    network_options,
    recheck_option,
    swarm_options,
    thin_option,
    threads_option,
    verbose_option,
    web_options,
)
from node.errors import KekahydeError
from node.process.core_dumps import forbid_core_dumps
from protocol.multiaddr import Multiaddr

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


class Commands(LazyGroup):
    """Every command and where it is defined."""

    places: ClassVar = {
        "allow": "node.cli.access:allow",
        "audit": "node.cli.audit:audit",
        "ban": "node.cli.access:ban",
        "bench": "node.cli.bench:bench",
        "completion": "node.cli.service:completion",
        "doctor": "node.cli.doctor:doctor",
        "id": "node.cli.facts:identity",
        "import": "node.cli.store:import_model",
        "invite": "node.cli.invite:invite",
        "join": "node.cli.join:join",
        "key": "node.cli.key:key",
        "launch": "node.cli.launch:launch",
        "lend": "node.cli.lend:lend",
        "models": "node.cli.store:models",
        "name": "node.cli.name:name",
        "pair": "node.cli.pair:pair",
        "peers": "node.cli.peers:peers",
        "pull": "node.cli.pull:pull",
        "run": "node.cli.run:run",
        "service": "node.cli.service:service",
        "tui": "node.cli.interface:tui",
        "unpair": "node.cli.pair:unpair",
        "version": "node.cli.facts:version",
    }


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--send-all-rows",
    "sends_all_rows",
    is_flag=True,
    help="Send the whole prompt at every turn, so that peers cannot tell that it continues the previous turn.",
)
@click.option("--headless", is_flag=True, help="Show no interface, only lines on stdout and stderr.")
@web_options
@json_option
@data_dir_option
@network_options
@discovery_options
@swarm_options
@gateway_options
@model_option
@lend_option
@draft_option
@recheck_option
@thin_option
@memory_option
@threads_option
@name_option
@click.option("--until-stdin-ends", is_flag=True, hidden=True)
@verbose_option
@click.version_option(package_name="kekahyde")
@click.pass_context
def cli(
    context: click.Context,
    sends_all_rows: bool,
    headless: bool,
    web: bool,
    web_port: int | None,
    as_json: bool,
    data_dir: Path,
    listen: Multiaddr | None,
    bootstrap: tuple[Multiaddr, ...],
    announce: tuple[Multiaddr, ...],
    no_mdns: bool,
    swarm_key: Path | None,
    is_open: bool,
    gateway: tuple[str, int] | None,
    no_gateway: bool,
    model: str,
    lend: str,
    draft: str | None,
    recheck: float,
    thin: bool,
    memory_bytes: int | None,
    threads: int | None,
    name: str | None,
    until_stdin_ends: bool,
    verbose: int,
) -> None:
    """Run AI prompts on other people's devices without those devices learning anything.

    Without a command this starts a node and, on a terminal, its interface. With --headless or --json, or where
    output is not a terminal, it shows no interface: it serves peers and programs until it is stopped. The first line
    on stdout says its address.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    configure_logging(verbose)
    if context.invoked_subcommand is not None:
        _refuse_misplaced(context)
        return
    if gateway is not None and no_gateway:
        raise click.UsageError("--gateway and --no-gateway exclude each other", context)
    if web and headless:
        raise click.UsageError("--web and --headless exclude each other", context)
    from node.cli import interface

    if web or not (headless or as_json or not interface.has_terminal()):
        interface.open_interface(data_dir, context.obj, web, web_port)
    else:
        with no_collection():
            from node.cli import serve
            from node.planning.placement import Lend

        endpoint = serve.Endpoint(gateway, not no_gateway)
        swarm = serve.SwarmChoice(swarm_key, is_open, announce, not no_mdns)
        options = serve.ServeOptions(
            data_dir,
            listen,
            bootstrap,
            swarm,
            endpoint,
            model,
            Lend(lend),
            thin,
            memory_bytes,
            threads,
            name,
            sends_all_rows,
            recheck,
            draft,
            as_json,
        )
        serve.serve(options, until_stdin_ends)


def _refuse_misplaced(context: click.Context) -> None:
    """Refuse an option before the command's name: it would be read here and never reach the command."""
    for parameter in context.command.params:
        given = parameter.name and context.get_parameter_source(parameter.name)
        if given is ParameterSource.COMMANDLINE and parameter.name != "verbose":
            raise click.UsageError(f"put {parameter.opts[0]} after `{context.invoked_subcommand}`", context)


def main(arguments: list[str] | None = None) -> Any:
    """Entry point of `kekahyde-node`."""
    forbid_core_dumps()
    try:
        _speak_utf8()
        given = sys.argv[1:] if arguments is None else arguments
        cli.main(given, prog_name="kekahyde-node", standalone_mode=False, obj=list(given))
    except click.exceptions.Exit as exc:
        sys.exit(exc.exit_code)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (KeyboardInterrupt, click.Abort):
        fail("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        drop(sys.stdout)
        sys.stderr.close()  # nobody reads our output any more, so there is nobody to tell
        sys.exit(EXIT_FAILED)
    except KekahydeError as exc:
        fail(str(exc))
        sys.exit(EXIT_FAILED)
    except OSError as exc:
        fail(f"{exc.filename or 'output'}: {exc.strerror}")
        drop(sys.stdout)
        sys.exit(EXIT_FAILED)
    finally:
        gc.freeze()  # else the interpreter scans all objects three times at its end: a tenth of a second


def _speak_utf8() -> None:
    """Make all standard streams UTF-8, whatever the locale says; replace a closed one by the null device."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
