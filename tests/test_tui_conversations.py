"""Conversations, commands in the prompt, and choices that are remembered; against the twin of a gateway."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tui_driver import Driver, finished, interface

from scripts.harness.gateway_twin import GatewayTwin, TwinConnection, model
from tui.archive import Archive, read_conversation, written
from tui.conversation import Answer, AnswerStatus, Conversation, Turn
from tui.screens.commands import COMMANDS, is_command


async def ask(driver: Driver, prompt: str) -> None:
    await driver.type(prompt)
    await driver.keys("enter")
    await finished(driver)


def test_conversations_are_listed_searched_resumed_and_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with interface(tmp_path) as driver:
            session = driver.app.session
            await ask(driver, "A fox met a bear")
            first = session.conversation
            await driver.keys("ctrl+n")
            await driver.sees("Press Enter to try")
            await ask(driver, "The moon came down")
            await driver.keys("ctrl+l")
            await driver.sees("Conversations", "A fox met a bear", "The moon came down", "in memory")
            await driver.keys("slash")
            await driver.type("fox")
            await driver.until(lambda: "in memory" in driver.screen and driver.screen.count(" turn · ") == 1)
            await driver.keys("enter", "k")
            await driver.sees("kept on disk")
            path = tmp_path / "conversations" / f"{first.id}.json"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert [each.name for each in path.parent.iterdir()] == [path.name], "of the other one nothing is written"
            await driver.keys("n")
            await driver.type("Bears")
            await driver.keys("enter")
            await driver.sees("Bears")
            await driver.keys("enter")
            await driver.until(lambda: session.conversation is first)
            await driver.sees("A fox met a bear", "Hello there friend")
            await ask(driver, "Then")
            assert driver.twin.requests("generate")[-1]["prompt"] == "A fox met a bearHello there **friend** Then"
            stored = json.loads(path.read_text())
            assert stored["title"] == "Bears" and len(stored["turns"]) == 2
        async with interface(tmp_path) as driver:
            await driver.keys("ctrl+l")
            await driver.sees("Bears", "kept on disk")
            assert "The moon" not in driver.screen
            await driver.keys("x")
            await driver.keys("y")
            await driver.sees("No conversation yet")
            assert not path.exists()
            await driver.keys("escape")
            await ask(driver, "Only now")
            await driver.keys("ctrl+l")
            await driver.sees("Only now", "in memory")
            await driver.keys("x", "y")
            await driver.sees("No conversation yet")
            await driver.keys("escape", "ctrl+l")
            await driver.sees("No conversation yet")
            assert not driver.app.session.conversation.turns, "also the one on the screen is gone"

    asyncio.run(scenario())


def test_an_export_is_markdown_and_overwrites_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with interface(tmp_path) as driver:
            await ask(driver, "A fox")
            for outcome in ("Exported", "Not exported"):
                await driver.keys("ctrl+l")
                await driver.sees("Enter goes on")
                await driver.keys("e")
                await driver.sees("Write it as Markdown")
                await driver.keys("ctrl+u")
                await driver.type(str(tmp_path / "fox.md"))
                await driver.keys("enter")
                await driver.sees(outcome)
                await driver.keys("escape")
                await driver.until(lambda: "Enter goes on" not in driver.screen)
            assert (tmp_path / "fox.md").read_text().startswith("# A fox\n")
            assert "> A fox\n\nHello there **friend**\n\n*story · split*" in (tmp_path / "fox.md").read_text()

    asyncio.run(scenario())


def test_commands_in_the_prompt(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with interface(tmp_path) as driver:
            await driver.type("/nosuch")
            await driver.keys("enter")
            await driver.sees("There is no command /nosuch", "/help")
            assert not driver.twin.requests("generate")
            await driver.keys("ctrl+u")
            await driver.type("/help")
            await driver.keys("enter")
            await driver.sees("/new /list /keep")
            await driver.keys("escape")
            await driver.type(" /help me")
            await driver.keys("enter")
            await finished(driver)
            assert driver.twin.requests("generate")[0]["prompt"] == " /help me"

    asyncio.run(scenario())
    assert all(is_command(f"/{name}") for name in COMMANDS)
    assert not is_command("/usr/bin is a folder") and not is_command("/ help") and not is_command("Hi")


def test_choices_are_remembered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with interface(tmp_path) as driver:
            await driver.twin.tell(models=[model(chat=True), model("other", chat=True)])
            await driver.keys("f7")
            await driver.sees("who could read it", "nobody, not even all peers together")
            await driver.keys("down", "down", "down", "enter")
            await driver.sees("next prompt: strict")
            await driver.keys("f9")
            await driver.sees("System prompt")
            await driver.keys(*"Be brief!")
            await driver.keys("tab", *"9", "enter")
            await driver.sees("is not a number from 0 to 2")
            await driver.keys("backspace", *"0", "tab", *"77", "ctrl+s")
            await driver.until(lambda: driver.app.session.settings.max_tokens == 77)
            driver.app.session.choose(model="other")
            driver.app.theme = "kekahyde-light"
            await driver.until(lambda: driver.app.session.settings.theme == "kekahyde-light")
        assert stat.S_IMODE((tmp_path / "interface.json").stat().st_mode) == 0o600
        async with interface(tmp_path) as driver:
            await driver.twin.tell(models=[model(chat=True), model("other", chat=True)])
            await driver.sees("next prompt: strict", "model other")
            assert driver.app.theme == "kekahyde-light"
            await ask(driver, "Hi")
            asked = driver.twin.requests("generate")[-1]
            assert (asked["privacy"], asked["model"]) == ("strict", "other")
            assert (asked["temperature"], asked["max_tokens"]) == (0, 77)
            assert asked["messages"][0] == {"role": "system", "content": "Be brief!"}

    asyncio.run(scenario())


def test_a_chat_that_outgrew_the_context_goes_on_without_its_oldest_turns(tmp_path: Path) -> None:
    async def outgrown(connection: TwinConnection, request: dict[str, Any]) -> None:
        if len(request["messages"]) > 3:
            message, code = "the prompt has 600 tokens, the model's context is 512", "context_length_exceeded"
            await connection.generation(request["request"], "error", message=message, code=code)
        else:
            await connection.answer(request["request"], ["Hello"])

    async def scenario() -> None:
        async with interface(tmp_path, GatewayTwin(outgrown)) as driver:
            await driver.twin.tell(models=[model(chat=True)])
            await driver.sees("Ask something")
            await ask(driver, "one")
            await driver.sees("context ")
            await ask(driver, "two")
            await driver.type("three")
            await driver.keys("enter")
            await driver.sees("ctrl+t drops the oldest turns", "Drop oldest")
            await driver.keys("ctrl+t")
            await finished(driver)
            await driver.sees("no longer reads the first 1 turn")
            contents = [message["content"] for message in driver.twin.requests("generate")[-1]["messages"]]
            assert contents == ["two", "Hello", "three"]

    asyncio.run(scenario())


def test_what_is_no_longer_kept_is_not_written_again(tmp_path: Path) -> None:
    """The node's memory may be older than the user's word."""
    archive, conversation = Archive(tmp_path), Conversation("abc")
    conversation.turns.append(Turn("Hi", Answer("r", 0.0, status=AnswerStatus.DONE, parts=["Hello"])))
    archive.keep(conversation)
    remembered = written(conversation)
    archive.keep_no_more(conversation)
    later = Archive(tmp_path)
    later.take([remembered])
    (found,) = later.all()
    later.note(found, 1.0)
    assert not found.kept and not list((tmp_path / "conversations").iterdir())


def test_an_archive_leaves_alone_what_it_cannot_read(tmp_path: Path) -> None:
    folder = tmp_path / "conversations"
    folder.mkdir()
    (folder / "abc.json").write_text("{")
    (folder / "def.json").write_text(json.dumps({"id": "other", "turns": []}))
    (folder / "deep.json").write_text("[" * 100_000)
    assert Archive(tmp_path).all() == []
    assert len(list(folder.iterdir())) == 3


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "turns", "answers"]), inner),
    max_leaves=10,
)


@given(json_values)
def test_any_text_is_a_conversation_or_none(value: Any) -> None:
    read_conversation(json.dumps(value))


words = st.text(st.characters(exclude_categories=["C"]), max_size=20)
"""No control characters: none of them may reach a terminal, so they are not read."""


@given(st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=3))))
def test_a_conversation_is_read_as_it_was_written(turns: list[tuple[str, list[str]]]) -> None:
    conversation = Conversation()
    for prompt, texts in turns:
        answers = [
            Answer("r", 0.0, status=AnswerStatus.DONE, parts=[text], number=number)
            for number, text in enumerate(texts)
        ]
        conversation.turns.append(Turn(prompt, answers[0], answers[1:]))
    text = written(conversation)
    again = read_conversation(text)
    assert again is not None and again.id == conversation.id
    assert json.loads(written(again)) == json.loads(text)
