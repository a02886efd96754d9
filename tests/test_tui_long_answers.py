"""Long answers and long conversations: only what is looked at is drawn, and nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tui_driver import finished, interface

from scripts.harness.gateway_twin import GatewayTwin, TwinConnection, receipt
from tui.widgets.answer_lines import AnswerLines
from tui.widgets.conversation_view import ConversationView
from tui.widgets.markdown import ModelMarkdown
from tui.widgets.prompt import Prompt


def test_a_long_answer_is_widgets_only_where_it_is_looked_at(tmp_path: Path) -> None:
    async def long(connection: TwinConnection, request: dict[str, Any]) -> None:
        lines = [f"line number {number}\n\n" for number in range(2000)]
        await connection.answer(request["request"], ["".join(lines[at : at + 50]) for at in range(0, 2000, 50)])

    async def scenario() -> None:
        async with interface(tmp_path, GatewayTwin(long)) as driver:
            await driver.keys("enter")
            await driver.sees("line number 1999")
            await finished(driver)
            view = driver.app.screen.query_one(ConversationView)
            await driver.until(lambda: not view.query(ModelMarkdown))
            pieces = view.query_one(AnswerLines).pieces
            assert len(pieces) > 100 and sum(bool(piece.strips) for piece in pieces) < 20
            assert len(list(view.children)) < 8
            assert 3900 < view.virtual_size.height < 4300
            await driver.keys("ctrl+home")
            await driver.sees("line number 0", "line number 3")
            for _ in range(4):
                await driver.keys("pagedown")
            await driver.sees("line number 43", "line number 49")
            await driver.keys("ctrl+end")
            await driver.sees("line number 1999")
            await driver.until(lambda: not view.query(ModelMarkdown))

    asyncio.run(scenario())


def test_lines_that_were_kept_look_as_they_did_and_can_be_selected(tmp_path: Path) -> None:
    text = "Some **bold** words and a [link](http://x.example).\n\n- one\n- two\n\n```python\nprint(1)\n```\n\n"
    text += "| a | b |\n|---|---|\n| 1 | 2 |\n\n" + "A long paragraph that wraps. " * 12 + "\n\n"

    async def rich(connection: TwinConnection, request: dict[str, Any]) -> None:
        await connection.generation(request["request"], "started", mode="split", model="story")
        await connection.generation(request["request"], "token", index=0, id=0, text=text)
        await go_on.wait()
        await connection.generation(request["request"], "receipt", receipt=receipt(text))

    go_on = asyncio.Event()

    async def scenario() -> None:
        async with interface(tmp_path, GatewayTwin(rich), size=(80, 50)) as driver:
            await driver.keys("enter")
            await driver.sees("print(1)", "that wraps")
            view = driver.app.screen.query_one(ConversationView)
            live = [line.strip() for line in driver.screen.splitlines() if line.strip()]
            go_on.set()
            await driver.sees("regenerate")
            await driver.until(lambda: not view.query(ModelMarkdown))
            kept = [line.strip() for line in driver.screen.splitlines() if line.strip()]
            begin, end = live.index("Some bold words and a link."), live.index("╭" + "─" * 76 + "╮")
            assert kept[kept.index(live[begin]) :][: end - begin] == live[begin:end]
            row = next(y for y, line in enumerate(driver.screen.splitlines()) if "Some bold" in line)
            await driver.pilot.click(offset=(driver.screen.splitlines()[row].index("link"), row))
            assert driver.app.clipboard == "http://x.example"
            await driver.pilot.mouse_down(offset=(driver.screen.splitlines()[row].index("bold"), row))
            await driver.pilot.hover(offset=(driver.screen.splitlines()[row].index("and"), row))
            await driver.pilot.mouse_up(offset=(driver.screen.splitlines()[row].index("and"), row))
            await driver.keys("ctrl+c")
            assert driver.app.clipboard.strip().startswith("bold words")
            await driver.pilot.resize_terminal(60, 40)
            await driver.until(lambda: max(len(line) for line in driver.screen.splitlines()) <= 60)
            await driver.until(lambda: not view.query(ModelMarkdown) and "that wraps" in driver.screen)

    asyncio.run(scenario())


def test_old_turns_are_put_away_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.screens.chat.SHOWN_TURNS", 3)

    async def scenario() -> None:
        async with interface(tmp_path) as driver:
            view = driver.app.screen.query_one(ConversationView)
            prompt = driver.app.screen.query_one(Prompt)
            for number in range(8):
                prompt.load_text(f"{number}")
                prompt.action_send()
                await driver.until(lambda count=number: len(driver.twin.requests("generate")) > count)
                await finished(driver)
            await driver.until(lambda: len(view.query("PromptView")) == 6)
            await driver.keys("ctrl+home")
            await driver.sees("2 earlier turns")
            await driver.keys("ctrl+home")
            await driver.until(lambda: len(view.query("PromptView")) == 8)
            await driver.keys("ctrl+home")
            await driver.sees("▌ 0", "▌ 1", "Hello there friend")
            await driver.keys("ctrl+n")
            await driver.sees("Press Enter to try")
            assert driver.app.session.conversation.turns == []

    asyncio.run(scenario())
