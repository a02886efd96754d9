"""Starts a program of others with the address of the running node, or prints how to."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from msgspec import Struct

from node.cli.options import EXIT_CODES, data_dir_option
from node.errors import ConfigError
from node.gateway.client.client import facts_of_node

KEY = "kekahyde"
"""Any text serves as the key on loopback; programs want one."""


class Program(Struct, frozen=True):
    """A program that can use a node. `{url}` and `{model}` stand for the node's own."""

    install: str
    variables: dict[str, str] = {}
    command: tuple[str, ...] = ()
    """Empty: it is not started here, because it reads its settings from a file."""
    settings: str = ""
    """What to write into that file."""
    asks_tokens: int = 0
    """About so many tokens its first request has."""


PROGRAMS = {
    "aider": Program(
        "uv tool install aider-chat",
        {"OPENAI_API_BASE": "{url}/v1", "OPENAI_API_KEY": KEY},
        ("aider", "--model", "openai/{model}", "--no-show-model-warnings"),
        asks_tokens=1_000,
    ),
    "claude": Program(
        "npm install -g @anthropic-ai/claude-code",
        {
            "ANTHROPIC_BASE_URL": "{url}",
            "ANTHROPIC_AUTH_TOKEN": KEY,
            "ANTHROPIC_MODEL": "{model}",
            "ANTHROPIC_SMALL_FAST_MODEL": "{model}",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        },
        ("claude",),
        asks_tokens=12_000,
    ),
    "continue": Program(
        "install the extension Continue in the editor",
        settings=(
            "# ~/.continue/config.yaml, under models:\n"
            "  - name: Kekahyde\n    provider: openai\n    model: {model}\n    apiBase: {url}/v1\n"
            f"    apiKey: {KEY}\n"
        ),
    ),
    "llm": Program(
        "uv tool install llm",
        settings=(
            '# extra-openai-models.yaml in the folder that `dirname "$(llm logs path)"` prints:\n'
            "- model_id: kekahyde\n  model_name: {model}\n  api_base: {url}/v1\n"
            "# then: llm -m kekahyde 'Hello'\n"
        ),
    ),
    "ollama": Program("pip install ollama", settings="# for programs that use Ollama:\nexport OLLAMA_HOST={url}\n"),
    "open-webui": Program(
        "uv tool install open-webui",
        {
            "OPENAI_API_BASE_URL": "{url}/v1",
            "OPENAI_API_KEY": KEY,
            "ENABLE_OLLAMA_API": "false",
            "WEBUI_AUTH": "false",
            "HOST": "127.0.0.1",
        },
        ("open-webui", "serve", "--host", "127.0.0.1"),
    ),
}


@click.command(epilog=EXIT_CODES, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("program", type=click.Choice(sorted(PROGRAMS)))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--print", "prints", is_flag=True, help="Print the command, and start nothing.")
@click.option("--model", default=None, help="Name of the model. Default: the node's own.")
@data_dir_option
def launch(program: str, arguments: Sequence[str], prints: bool, model: str | None, data_dir: Path) -> None:
    """Start PROGRAM so that it uses the node that runs on the data directory.

    ARGUMENTS go to the program; options of this command come before PROGRAM. Programs that read their settings from a
    file are not started: what to write there is printed.
    """
    facts = facts_of_node(data_dir)
    if not facts.get("gateway"):
        raise ConfigError("the node has no address for programs: start it without --no-gateway")
    chosen = PROGRAMS[program]
    model = model or str(facts["model"])
    context = {str(known["name"]): known.get("context") for known in facts.get("models", ())}.get(model)
    if isinstance(context, int) and context < chosen.asks_tokens:
        raise ConfigError(
            f"{program} asks with about {chosen.asks_tokens} tokens and {model} reads {context}: choose a model with "
            "a longer context with --model, before the name of the program"
        )
    values = {"url": str(facts["gateway"]), "model": model}
    if not chosen.command:
        click.echo(chosen.settings.format(**values), nl=False)
        return
    variables = {name: value.format(**values) for name, value in chosen.variables.items()}
    command = [*(part.format(**values) for part in chosen.command), *arguments]
    if prints:
        click.echo(shlex.join([*(f"{name}={value}" for name, value in variables.items()), *command]))
        return
    path = shutil.which(command[0])
    if path is None:
        raise ConfigError(f"{command[0]} is not installed: {chosen.install}")
    sys.stdout.flush()
    os.execve(path, command, {**os.environ, **variables})
