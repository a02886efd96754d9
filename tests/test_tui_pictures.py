"""Pictures of the interface, compared with those that were looked at: time stands still, nothing blinks or moves.

KEKAHYDE_UPDATE_PICTURES=1 writes them anew; look at each before it is committed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic

import pytest
from tui_driver import Clock, Driver, interface, normal_svg

from scripts.harness.gateway_twin import PEER_IDS, GatewayTwin, TwinConnection, model, peer
from tui.widgets.markdown import ModelMarkdown
from tui.widgets.prompt import Prompt

PICTURES = Path(__file__).parent / "snapshots"
STORY = (
    "Once upon a time, there was a little robot. **Every** morning it watered the *flowers*.\n\n"
    "- a red one\n- a blue one\n\n```python\nfor flower in garden:\n    water(flower)\n```\n\nThe end."
)


async def story(connection: TwinConnection, request: dict[str, str]) -> None:
    name = request["request"]
    await connection.generation(name, "started", mode="split", model="story", plan="it is faster", prompt_tokens=5)
    await connection.generation(name, "note", text=f"peer …{PEER_IDS[3][-6:]} was lost, what it had is computed here")
    await connection.answer(name, [STORY])


def twin() -> GatewayTwin:
    made = GatewayTwin(story)
    made.state["peers"] = [
        peer(0),
        peer(1, chunks=412),
        peer(2, state="suspect", connected=False),
        peer(3, state="dead", connected=False, rtt_ms=None),
        peer(4, rejected=1, excluded="banned: a wrong result"),
    ]
    made.state["models"] = [model(), model("llama-8b", chat=True, layers=32, held="0-20", state="fetching")]
    transfer = {"id": "t1", "kind": "pull", "model": "llama-8b", "done_bytes": 5_200_000_000, "state": "running"}
    made.state["transfers"] = [{**transfer, "total_bytes": 8_000_000_000, "rate_bytes_s": 4e7, "sources": 3}]
    return made


async def see_welcome(driver: Driver) -> None:
    await driver.sees("Press Enter to try")


async def see_chat(driver: Driver) -> None:
    await driver.keys("enter")
    await driver.sees("The end.", "regenerate", "38.0 tok/s")
    await driver.until(lambda: not driver.app.screen.query(ModelMarkdown))


async def see_receipt(driver: Driver) -> None:
    await see_chat(driver)
    await driver.keys("f8")
    await driver.sees("No single peer could read")


async def see_peers(driver: Driver) -> None:
    await driver.keys("f3")
    await driver.sees("✗ banned", "◐ suspect", "○ dead")


async def see_models(driver: Driver) -> None:
    await driver.keys("f4")
    await driver.sees("65 %", "llama-8b")


async def see_chunks(driver: Driver) -> None:
    clock = driver.app.session.clock
    assert isinstance(clock, Clock)
    board = driver.app.session.board
    for tick in range(60):
        clock.now += 0.5
        board.apply([_record(seq, tick) for seq in range(tick * 8, tick * 8 + 8)], clock.now)
    await driver.keys("f5")
    await driver.sees("Who computes when", "layer")


def _record(seq: int, tick: int) -> list[object]:
    state = "rejected" if seq == 200 else "lost" if seq == 300 else "local" if seq % 41 == 0 else "verified"
    state = "sent" if tick == 59 else state
    worker = PEER_IDS[seq % 2]
    return [seq, "r", seq % 6, ("qkv", "o", "gate_up", "down")[seq % 4], 0, 8, worker, "share", state, 1.0 + seq % 6]


async def see_help(driver: Driver) -> None:
    await driver.keys("f1")
    await driver.sees("Type and press Enter")


VIEWS: dict[str, Callable[[Driver], Awaitable[None]]] = {
    "welcome": see_welcome,
    "chat": see_chat,
    "receipt": see_receipt,
    "peers": see_peers,
    "models": see_models,
    "chunks": see_chunks,
    "help": see_help,
}
SETTLING_S = 10.0
SIZES = {
    (60, 20): ("welcome", "chat", "peers", "chunks"),
    (80, 24): tuple(VIEWS),
    (140, 40): ("chat", "peers", "chunks"),
}
CASES = [(view, size) for size, views in SIZES.items() for view in views]


async def picture(data_dir: Path, view: str, size: tuple[int, int], wanted: str | None) -> str:
    """The screen as SVG, without what differs between runs: what it settles to, since a layer may be drawn late."""
    async with interface(data_dir, twin(), size=size, clock=Clock()) as driver:
        driver.app.screen.query_one(Prompt).cursor_blink = False
        await VIEWS[view](driver)
        driver.app.clear_notifications()
        deadline = monotonic() + SETTLING_S
        while True:
            drawn = normal_svg(driver.app.export_screenshot(title="Kekahyde", simplify=True))
            if wanted in (None, drawn) or monotonic() > deadline:
                return drawn
            await driver.pilot.pause(0.05)


@pytest.mark.parametrize(("view", "size"), CASES, ids=[f"{view}-{width}x{height}" for view, (width, height) in CASES])
def test_it_looks_as_it_did(view: str, size: tuple[int, int], tmp_path: Path) -> None:
    kept = PICTURES / f"{view}-{size[0]}x{size[1]}.svg"
    updating = os.environ.get("KEKAHYDE_UPDATE_PICTURES") == "1"
    drawn = asyncio.run(picture(tmp_path, view, size, None if updating else kept.read_text(encoding="utf-8")))
    if updating:
        kept.write_text(drawn, encoding="utf-8")
    new = tmp_path / kept.name
    new.write_text(drawn, encoding="utf-8")
    assert drawn == kept.read_text(encoding="utf-8"), f"compare {new} with {kept}"
