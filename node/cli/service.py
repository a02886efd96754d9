"""Prints texts that the user installs for the shell and for systemd."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from node.cli.options import EXIT_CODES, data_dir_option
from node.errors import ConfigError
from node.process.descriptors import NEEDED, WANTED

PROGRAM = "kekahyde-node"
COMPLETE_VARIABLE = "_KEKAHYDE_NODE_COMPLETE"
_PATH_OPTIONS = ("--swarm-key", "--model")
_PLAIN_WORD = re.compile(r"[\w@%+=:,./$-]+")
UNIT = """\
# systemd user unit of Kekahyde. Install and start it:
#   kekahyde-node service > ~/.config/systemd/user/kekahyde-node.service
#   systemctl --user daemon-reload && systemctl --user enable --now kekahyde-node
# It ends when you log out, unless you run: loginctl enable-linger
[Unit]
Description=Kekahyde node: lends computing to peers and answers prompts
After=network-online.target

[Service]
Type=exec
ExecStart={command}
Restart=on-failure
RestartSec=3
TimeoutStopSec=20
UMask=0077
# If strangers make this node use too much of the machine's memory, only this node must end (systemd starts it again).
# Weights that can be read from the disk again do not count. A lower limit is safe: 1G for the model story, else twice
# the size of the models.
MemoryMax=75%
# A core dump would contain prompts and keys.
LimitCORE=0
# Each link, lane and client needs up to three open files. A node uses no more than this limit, and does not start
# with fewer than {needed}.
LimitNOFILE={wanted}
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=full
RestrictSUIDSGID=yes
LockPersonality=yes

[Install]
WantedBy=default.target
"""


@click.command(epilog=EXIT_CODES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    bash   eval "$(kekahyde-node completion bash)"        in ~/.bashrc
    zsh    eval "$(kekahyde-node completion zsh)"         in ~/.zshrc
    fish   kekahyde-node completion fish | source         in ~/.config/fish/config.fish
    """
    found = get_completion_class(shell)
    assert found is not None, f"click knows {shell}"
    click.echo(found(context.find_root().command, {}, PROGRAM, COMPLETE_VARIABLE).source())


@click.command(epilog=EXIT_CODES, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@data_dir_option
@click.pass_context
def service(context: click.Context, data_dir: Path) -> None:
    """Print a systemd user unit that runs this node.

    Options of a node (--listen, --model ...) are written into the unit.
    """
    context.find_root().command.make_context(PROGRAM, list(context.args)).close()  # raises UsageError
    given = ["--data-dir", str(data_dir.absolute())] if _chosen(context) else []
    command = [*_program(), "--headless", *given, *_absolute(context.args)]
    click.echo(UNIT.format(command=_quoted(command), needed=NEEDED, wanted=WANTED), nl=False)


def _absolute(arguments: Sequence[str]) -> list[str]:
    """Make paths absolute, because systemd starts the unit in another folder."""
    spread: list[str] = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        spread += [option, value] if equals and option in _PATH_OPTIONS else [argument]
    return [
        str(Path(part).absolute()) if option in _PATH_OPTIONS and Path(part).exists() else part
        for option, part in zip(["", *spread], spread, strict=False)
    ]


def _chosen(context: click.Context) -> bool:
    source = context.get_parameter_source("data_dir")
    return source is not None and source.name == "COMMANDLINE"


def _program() -> list[str]:
    """The program installed beside this Python; else the one in PATH; else the module."""
    beside = Path(sys.executable).with_name(PROGRAM)
    if beside.is_file():
        return [str(beside)]
    found = shutil.which(PROGRAM)
    return [found] if found else [sys.executable, "-m", "node"]


def _quoted(command: Sequence[str]) -> str:
    """The command in systemd's syntax: special characters are doubled, and words that need it are quoted."""
    return " ".join(_word(part) for part in command).replace("%", "%%").replace("$", "$$")


def _word(part: str) -> str:
    if not part.isprintable():
        raise ConfigError(f"{part!r} cannot be written into a unit: leave out characters that cannot be printed")
    if _PLAIN_WORD.fullmatch(part):
        return part
    escaped = part.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
