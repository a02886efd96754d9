"""`scripts/screenshot`: the pictures of README.md, from a real run: four nodes, a client, a prompt, its answer."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
from textual.pilot import Pilot

from scripts.harness.swarm import Swarm
from tui.app import KekahydeApp
from tui.launcher import NodeLauncher

PROMPT = "Once upon a time, there was a little robot who"
SIZE = (104, 30)
NODES = 4
DEADLINE_S = 120.0
FOLDER = Path(__file__).resolve().parents[2] / "tui" / "pictures"


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise click.ClickException("the run did not come so far: is this machine very busy?")
        await asyncio.sleep(0.05)


def standalone(svg: str) -> str:
    """The picture without fonts from elsewhere, and with the same names in every run."""
    without_fonts = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S)
    return re.sub(r"terminal-\d+", "terminal", without_fonts)


async def take(app: KekahydeApp, pilot: Pilot[str | None], folder: Path) -> None:
    """Ask, and keep the chat, the chunks and the peers as they are seen then."""
    session = app.session
    await until(lambda: session.state.helpers == NODES)
    session.choose(privacy="split")

    async def keep(name: str) -> None:
        await pilot.pause(0.3)
        picture = standalone(app.export_screenshot(title="Kekahyde", simplify=True))
        (folder / f"{name}.svg").write_text(picture, encoding="utf-8")
        click.echo(f"{folder / name}.svg  {len(picture) // 1000} kB")

    for character in PROMPT:
        await pilot.press("space" if character == " " else "comma" if character == "," else character)
    await pilot.press("enter")
    await until(lambda: session.answer and session.answer.receipt)
    await keep("chat")
    await pilot.press("f8")
    await keep("receipt")
    await pilot.press("escape", "ctrl+r", "f5")
    await until(lambda: session.answer and session.answer.tokens > 30)
    await keep("chunks")
    await pilot.press("f3")
    await keep("peers")


async def run(swarm: Swarm, folder: Path) -> None:
    data_dir = swarm.folder / "picture"
    command = [
        sys.executable,
        "-m",
        "node",
        "--headless",
        "--json",
        "--data-dir",
        str(data_dir),
        "--name",
        "anna",
        *swarm.bootstrap(),
    ]
    launcher = NodeLauncher(data_dir, command)
    app = KekahydeApp(launcher)
    try:
        async with app.run_test(size=SIZE) as pilot:
            await take(app, pilot, folder)
    finally:
        await launcher.stop()


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=FOLDER, show_default="tui/pictures")
def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with Swarm() as swarm:
        os.environ.update(swarm.environment)
        swarm.start(NODES)
        asyncio.run(run(swarm, folder))


if __name__ == "__main__":
    main(prog_name="scripts/screenshot")
