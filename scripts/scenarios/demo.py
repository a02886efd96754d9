"""`scripts/demo`: a client and 4 node processes, a streamed story, the receipt, the same text computed alone."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console

from scripts.harness.real_models import SMOLLM2, NotFetchedError, smollm2_models
from scripts.harness.swarm import RunResult, Swarm
from scripts.scenarios.swarm import report
from scripts.scenarios.thin import main as lend_thin

NUM_NODES = 4
BEGINNING = "Once upon a time, a little fox"
THIN_TOKENS = 24
"""An answer of the thin client, which is given six times."""
QUESTION = "What is the capital of France?"


def _fetched() -> Path:
    try:
        return smollm2_models()
    except NotFetchedError as exc:
        raise click.ClickException(str(exc)) from exc


@click.command()
@click.argument("prompt", required=False)
@click.option("--max-tokens", type=int, default=160, show_default=True)
@click.option("--seed", type=int, default=7, show_default=True)
@click.option("--chat", is_flag=True, help="Ask SmolLM2-135M-Instruct, which is fetched once (about 100 MB).")
@click.option("--thin", is_flag=True, help="No node holds more than 60 % of the model, and the client none of it.")
def main(prompt: str | None, max_tokens: int, seed: int, chat: bool, thin: bool) -> None:
    """Tell a story that begins with PROMPT, or answer it, over 4 real nodes on this machine."""
    console = Console(stderr=True, highlight=False)
    sampling = ["--max-tokens", str(max_tokens), "--seed", str(seed)]
    prompt = prompt or (QUESTION if chat else BEGINNING)
    if thin:
        options = [*sampling, "--ignore-eos", "--temperature", "0", *(["--chat"] if chat else [])]
        options[1] = str(min(max_tokens, THIN_TOKENS))
        return lend_thin(prompt, options, _fetched() if chat else None, SMOLLM2 if chat else "story")
    with Swarm() as swarm:
        if chat:
            console.print("[bold]0.[/bold] SmolLM2-135M-Instruct: fetching it, unless it is here")
            swarm.model, swarm.models = SMOLLM2, _fetched()
            sampling += ["--chat", "--temperature", "0"]
        console.print(f"[bold]1.[/bold] starting {NUM_NODES} nodes on 127.0.0.1 (they will see uniform noise only)")
        swarm.start(NUM_NODES)
        for node in swarm.nodes:
            console.print(f"   {node.address}", soft_wrap=True)
        console.print(f"[bold]2.[/bold] the {'answer' if chat else 'story'}, its linear layers computed by them:\n")
        remote = swarm.run(
            prompt, [*sampling, "--privacy", "split"], on_text=_Printer(f"{prompt}\n\n" if chat else prompt)
        )
        print("\n")
        console.print("[bold]3.[/bold] the same prompt and seed on this device alone")
        local = swarm.run(prompt, [*sampling, "--privacy", "local"], alone=True)
    report(console, remote, local, "none")
    _conclude(console, remote, local)


class _Printer:
    """Prints tokens as they come, the prompt before the first."""

    def __init__(self, prompt: str) -> None:
        self._before = prompt

    def __call__(self, text: str) -> None:
        print(self._before + text, end="", flush=True)
        self._before = ""


def _conclude(console: Console, remote: RunResult, local: RunResult) -> None:
    if remote.returncode or local.returncode:
        console.print(f"[bold]failed[/bold]: {remote.narration}{local.narration}")
        sys.exit(1)
    receipt, chunks = remote.receipt, remote.receipt["chunks"]
    used = sum(peer["chunks"] > 0 for peer in receipt["peers"])
    console.print(
        f"mode {receipt['mode']}: {chunks['verified']} of {chunks['merged']} chunks computed by {used} peers and "
        f"verified before use, {chunks['local']} computed here; "
        f"{receipt['bytes']['up'] / 1e6:.1f} MB up, {receipt['bytes']['down'] / 1e6:.1f} MB down"
    )
    same = remote.token_ids == local.token_ids and remote.text == local.text
    console.print("the text is the same to the last token" if same else "[bold]the texts differ[/bold]")
    if not same or receipt["mode"] != "split" or used < 2:
        sys.exit(1)


if __name__ == "__main__":
    main(prog_name="scripts/demo")
