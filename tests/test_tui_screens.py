"""The screens beside the chat: peers, models, chunks, logs, help; in wide and in narrow terminals."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tui_driver import Clock, interface

from scripts.harness.gateway_twin import PEER_IDS, GatewayTwin, model, peer
from tui.screens.help import help_markdown
from tui.widgets.chunk_views import ChunkList


def twin_with_peers(count: int = 4) -> GatewayTwin:
    twin = GatewayTwin()
    twin.state["peers"] = [peer(number) for number in range(count)]
    return twin


def records(start: int, count: int, state: str = "merged") -> list[list[object]]:
    """Lives of chunks of the first two peers."""
    return [
        [seq, "r", seq % 6, ("qkv", "o", "gate_up", "down")[seq % 4], 0, 8, PEER_IDS[seq % 2], "share", step, 2.5]
        for seq in range(start, start + count)
        for step in ("sent", "verified", state)
    ]


def test_peers_are_told_apart_and_followed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with interface(tmp_path, twin_with_peers(), size=(140, 40)) as driver:
            await driver.keys("f3")
            await driver.sees("…000003", "● alive", "computes", "pads", "4.5 ms", "0-5", PEER_IDS[0])
            await driver.twin.tell(
                peers=[
                    peer(0, chunks=50, rejected=1, excluded="banned: a wrong result"),
                    peer(1, state="suspect", connected=False),
                    peer(2, connected=False),
                ]
            )
            await driver.sees("✗ banned", "◐ suspect", "◌ not linked", "gets no work: banned: a wrong result", "█")
            assert "…000003" not in driver.screen
            await driver.keys("down")
            await driver.sees(PEER_IDS[1])

    asyncio.run(scenario())


def test_no_peers_says_what_to_do(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with interface(tmp_path) as driver:
            await driver.keys("f3")
            await driver.sees("No peers yet", "press i", "press F3 and j")
            driver.twin.results["invite"] = {"line": "kekahyde:abc", "expires": 1, "note": "nobody can reach it"}
            await driver.keys("i")
            await driver.sees("kekahyde:abc", "nobody can reach it", "the key stays valid")
            assert "▀" in driver.screen, "a QR code"
            await driver.keys("c")
            await driver.until(lambda: driver.app.clipboard == "kekahyde:abc")

    asyncio.run(scenario())


def test_chunks_are_shown_as_they_happen(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = Clock()
        async with interface(tmp_path, twin_with_peers(), clock=clock) as driver:
            await driver.keys("f5")
            await driver.sees("No chunks yet", "when peers help with an answer")
            await driver.twin.broadcast({"type": "chunks", "dropped": 0, "items": records(0, 40)})
            await driver.sees(
                "Who computes when", "…000000", "…000001", "✓ right, used", "✓ 40 right", "layer 0 to 5"
            )
            trouble = [
                [100, "r", 0, "qkv", 0, 8, PEER_IDS[1], "share", "rejected", 3.0],
                [100, "r", 0, "qkv", 0, 8, None, None, "local", 0.0],
                [101, "r", 3, "down", 0, 8, PEER_IDS[0], "share", "sent", 0.0],
            ]
            await driver.twin.broadcast({"type": "chunks", "dropped": 7, "items": trouble})
            await driver.sees("✗ 1 wrong", "⌂ 1 here", "1 in flight", "7 changes not shown", "→ on its way", "✗")
            await driver.keys("f")
            await driver.sees("ONLY TROUBLE", "⌂ computed here")
            assert "right, used" not in driver.screen
            await driver.keys("escape", "space")
            await driver.sees("HELD", "right, used")
            held = driver.screen
            await driver.twin.broadcast({"type": "chunks", "dropped": 0, "items": records(200, 10)})
            await driver.until(lambda: 209 in driver.app.session.board.rows)
            clock.now += 1
            assert driver.app.screen.query_one(ChunkList) and driver.screen == held
            await driver.keys("space")
            await driver.sees("✓ 50 right")

    asyncio.run(scenario())


def test_the_way_through_own_devices_is_drawn(tmp_path: Path) -> None:
    spans = [
        {"first": 0, "end": 16, "peer_id": PEER_IDS[0], "name": "desk", "step_ms": 8.71, "tokens": 148},
        {"first": 16, "end": 30, "peer_id": PEER_IDS[1], "name": "", "step_ms": None, "tokens": 0},
    ]
    request = {"request": "r", "state": "running", "mode": "trusted", "model": "story", "tokens": 3, "spans": spans}

    async def scenario() -> None:
        async with interface(tmp_path, twin_with_peers()) as driver:
            await driver.keys("f5")
            await driver.sees("No chunks yet")
            await driver.twin.tell(requests=[request])
            await driver.sees(
                "┌ this device: the text, the embedding",
                "├ desk: layers 0-15, 8.7 ms a token, 148 tokens in its cache",
                "├ …000001: layers 16-29",
                "└ this device: the head",
            )
            assert "No chunks yet" not in driver.screen
            spans[1] |= {"peer_id": None, "step_ms": 9.0}
            await driver.twin.tell(requests=[request])
            await driver.sees("├ this device: layers 16-29, 9.0 ms a token")
            await driver.twin.tell(requests=[])
            await driver.sees("├ desk: layers 0-15")

    asyncio.run(scenario())


def test_models_are_chosen_fetched_and_cancelled(tmp_path: Path) -> None:
    async def scenario() -> None:
        twin = GatewayTwin()
        twin.state["models"] = [model(), model("big", state="partial", held="0-2", coverage="layers 3-5 are missing")]
        twin.state["models"].append(model("chatty", chat=True))
        async with interface(tmp_path, twin, size=(120, 30)) as driver:
            await driver.keys("f4")
            await driver.sees("▶ story", "● ready", "◑ partly here", "layers 3-5 are missing", "No transfers")
            await driver.keys("down", "enter")
            await driver.sees("Fetch big?", "Nobody calls it big", "All of it (a)")
            await driver.keys("escape", "down", "enter")
            await driver.sees("▶ chatty", "chatty is on the swarm")
            assert [asked["model"] for asked in twin.requests("publish")] == ["chatty-id"]
            await driver.keys("p")
            await driver.type("org/name")
            await driver.keys("enter")
            await driver.until(lambda: twin.requests("pull"))
            assert twin.requests("pull")[0]["model"] == "org/name"
            transfer = {"id": "t1", "kind": "pull", "model": "org/name", "done_bytes": 25_000_000, "state": "running"}
            transfer |= {"total_bytes": 100_000_000, "rate_bytes_s": 5e6, "sources": 3, "error": None}
            await twin.tell(transfers=[transfer])
            await driver.sees("25 %", "25.0 MB of 100 MB", "5.0 MB/s from 3 sources", "15 s left", "██")
            await driver.keys("x")
            await driver.until(lambda: twin.requests("pull_cancel"))
            assert twin.requests("pull_cancel")[0]["transfer"] == "t1"
            await twin.tell(transfers=[{**transfer, "state": "failed", "error": "the disk is full"}])
            await driver.sees("✗ failed: the disk is full")
            twin.refuse["pull"] = "there is no such model at the hub"
            await driver.keys("p")
            await driver.type("no/such")
            await driver.keys("enter")
            await driver.sees("there is no such model at the hub")

    asyncio.run(scenario())


def test_a_model_of_another_device_is_fetched_under_its_name_and_taken_off_the_swarm(tmp_path: Path) -> None:
    async def scenario() -> None:
        twin = GatewayTwin()
        ours = model("ours", published=True, disk_bytes=5_000_000)
        twin.state["models"] = [ours, model("theirs", state="remote", held="", named_by="laptop", coverage="")]
        async with interface(tmp_path, twin, size=(130, 30)) as driver:
            await driver.keys("f4")
            await driver.sees("◉ on the swarm", "theirs (laptop)", "○ elsewhere", "others", "5.0 MB")
            await driver.keys("down", "enter")
            await driver.sees("laptop calls it theirs; the model itself is theirs-id")
            await driver.keys("t")
            await driver.until(lambda: twin.requests("pull"))
            asked = twin.requests("pull")[0]
            assert (asked["model"], asked["name"], asked["thin"]) == ("theirs-id", "theirs", True)
            await driver.keys("u")
            await driver.sees("not on the swarm by this device")
            await driver.keys("up", "u")
            await driver.until(lambda: twin.requests("unpublish"))
            assert twin.requests("unpublish")[0]["model"] == "ours-id"

    asyncio.run(scenario())


def test_logs_are_shown_and_filtered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with interface(tmp_path) as driver:
            await driver.keys("f6")
            await driver.sees("No log lines yet")
            for level, text in (("INFO", "a peer joined"), ("WARNING", "[b]a peer[/b] \x1b[2Jis slow")):
                await driver.twin.broadcast(
                    {"type": "log", "time": 0.0, "level": level, "logger": "node.x", "message": text}
                )
            await driver.sees("a peer joined", "WARNING x: [b]a peer[/b] [2Jis slow")
            await driver.keys("f")
            await driver.until(lambda: "a peer joined" not in driver.screen)
            await driver.sees("is slow")
            await driver.keys("escape")
            await driver.sees("a peer joined", "is slow")

    asyncio.run(scenario())


def test_help_tells_of_the_screen_and_the_keys(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with interface(tmp_path) as driver:
            await driver.keys("f1")
            await driver.sees("Type and press Enter", "ctrl+r", "answer the last prompt again")
            await driver.keys("escape", "f5", "f1")
            await driver.sees("Who computes when")

    asyncio.run(scenario())


def test_help_names_the_address_for_programs() -> None:
    text = help_markdown("chat", "", "http://127.0.0.1:11435")
    assert "`http://127.0.0.1:11435/v1`" in text and "Ollama" in text
    assert "--no-gateway" in help_markdown("chat", "", "")


def test_the_receipt_key_answers_on_every_screen(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with interface(tmp_path) as driver:
            for screen in ("f3", "f4", "f5", "f6"):
                await driver.keys(screen, "f8")
                await driver.sees("There is no receipt yet")

    asyncio.run(scenario())


def test_the_palette_has_every_command(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with interface(tmp_path) as driver:
            await driver.keys("ctrl+p")
            await driver.sees("Search for commands")
            for character in "strict":
                await driver.keys(character)
            await driver.sees("Privacy: strict")
            await driver.keys("enter")
            await driver.until(lambda: driver.app.session.privacy == "strict")

    asyncio.run(scenario())


def test_the_mouse_is_enough_to_move_and_to_begin(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with interface(tmp_path) as driver:
            await driver.sees("F3 Peers")
            await driver.pilot.click(offset=(driver.screen.splitlines()[0].index("F3") + 1, 0))
            await driver.sees("No peers yet: your node answers alone")
            await driver.pilot.click(offset=(driver.screen.splitlines()[0].index("F2") + 1, 0))
            await driver.sees("big red box")
            row = next(y for y, line in enumerate(driver.screen.splitlines()) if "big red box" in line)
            await driver.pilot.click(offset=(10, row))
            await driver.sees("│ Lily and her dog found a big red box")
            await driver.keys("enter")
            await driver.sees("regenerate")
            row = next(y for y, line in enumerate(driver.screen.splitlines()) if "regenerate" in line)
            await driver.pilot.click(offset=(driver.screen.splitlines()[row].index("who saw"), row))
            await driver.sees("Split: who saw what")

    asyncio.run(scenario())


def test_a_narrow_terminal_leaves_out_what_it_must(tmp_path: Path) -> None:
    async def scenario() -> None:
        twin = twin_with_peers(64)
        async with interface(tmp_path, twin, size=(60, 20)) as driver:
            await driver.sees("F2 Chat", "F6 Logs", "Press Enter to try")
            await driver.keys("enter")
            await driver.sees("38.0 tok/s", "✓ 38", "Hello there friend")
            await driver.keys("f3")
            await driver.sees("RTT", "● alive", "wrong")
            assert "activity" not in driver.screen and "layers" not in driver.screen.splitlines()[1]
            await twin.broadcast({"type": "chunks", "dropped": 0, "items": records(0, 40)})
            await driver.keys("f5")
            await driver.sees("Who computes when", "right, used")
            assert "Where in the model" not in driver.screen
            for width, height in ((100, 30), (40, 12), (140, 40)):
                await driver.pilot.resize_terminal(width, height)
                await driver.until(lambda size=(width, height): driver.app.size == size)
            await driver.sees("Where in the model")

    asyncio.run(scenario())
