"""The chat as a person uses it: keys pressed, the screen read, against the twin of a gateway."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from textual import events
from tui_driver import Clock, Driver, finished, interface

from scripts.harness.gateway_twin import PEER_IDS, GatewayTwin, TwinConnection, model, peer
from tui.app import KekahydeApp
from tui.conversation import AnswerStatus
from tui.launcher import NodeLauncher
from tui.screens.trouble import TroubleScreen
from tui.widgets.prompt import Prompt


async def endless(connection: TwinConnection, request: dict[str, Any]) -> None:
    """Words until it is cancelled."""
    await connection.answer(request["request"], [f" word{number}" for number in range(100_000)], pause_s=0.05)


async def lose_a_peer(connection: TwinConnection, request: dict[str, Any]) -> None:
    name = request["request"]
    await connection.generation(name, "queued", position=2)
    await connection.generation(name, "started", mode="split", model="story", plan="it is faster", prompt_tokens=512)
    await connection.generation(name, "prefill", done=128, total=512)
    await connection.generation(name, "token", index=0, id=1, text="Once")
    await connection.generation(name, "note", text=f"peer {PEER_IDS[1][-6:]} was lost, its chunks are computed here")
    await connection.generation(name, "token", index=1, id=2, text=" upon")


def test_from_nothing_to_a_first_token_with_one_key(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with interface(tmp_path) as driver:
            await driver.sees("continues stories", "Press Enter to try", "No peers yet")
            await driver.keys("enter")
            await driver.sees("Once upon a time, there was a little robot who", "Hello there friend")
            asked = driver.twin.requests("generate")[0]
            assert asked["prompt"].startswith("Once upon a time") and "messages" not in asked
            assert asked["privacy"] == "auto" and asked["model"] == "story"
            await driver.sees("3 tokens · first after 0.10 s", "38.0 tok/s", "✓ 38")

    asyncio.run(scenario())


def test_a_story_goes_on_with_enter_and_a_chat_sends_messages(tmp_path: Path) -> None:
    async def cut_off(connection: TwinConnection, request: dict[str, Any]) -> None:
        await connection.answer(request["request"], ["Hello", " there", " **friend**"], finish_reason="length")

    async def scenario() -> None:
        async with interface(tmp_path, GatewayTwin(cut_off)) as driver:
            await driver.type("Go.")
            await driver.keys("ctrl+j", "a", "enter")
            await finished(driver)
            await driver.keys("enter")
            await driver.until(lambda: len(driver.twin.requests("generate")) == 2)
            assert driver.twin.requests("generate")[1]["prompt"] == "Go.\naHello there **friend**"
            await finished(driver)
            await driver.twin.tell(models=[model(chat=True)])
            await driver.sees("Ask something")
            await driver.keys("enter")
            await driver.type("Hi")
            await driver.keys("enter")
            await driver.until(lambda: len(driver.twin.requests("generate")) == 3)
            messages = driver.twin.requests("generate")[2]["messages"]
            assert [message["role"] for message in messages][-1] == "user" and messages[-1]["content"] == "Hi"

    asyncio.run(scenario())


def test_a_chat_that_outgrew_the_context_says_how_to_go_on(tmp_path: Path) -> None:
    async def outgrown(connection: TwinConnection, request: dict[str, Any]) -> None:
        if len(request["messages"]) == 1:
            await connection.answer(request["request"], ["Hello"])
        else:
            message, code = "the prompt has 600 tokens, the model's context is 512", "context_length_exceeded"
            await connection.generation(request["request"], "error", message=message, code=code)

    async def scenario() -> None:
        async with interface(tmp_path, GatewayTwin(outgrown)) as driver:
            await driver.twin.tell(models=[model(chat=True)])
            await driver.sees("Ask something")
            for text in ("Hi", "Bye"):
                await driver.type(text)
                await driver.keys("enter")
                await driver.until(lambda: driver.app.session.answer and driver.app.session.answer.ended)
            answer = driver.app.session.answer
            assert answer is not None and "context is 512" in answer.error and "ctrl+n begins a new" in answer.error

    asyncio.run(scenario())


def test_escape_stops_keeps_the_text_and_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with interface(tmp_path, GatewayTwin(endless)) as driver:
            await driver.keys("enter")
            await driver.sees("word5")
            await driver.keys("x", "enter")
            await driver.sees("Esc stops it")
            await driver.keys("escape")
            answer = driver.app.session.answer
            assert answer is not None and answer.status is AnswerStatus.STOPPED
            text = answer.text
            await driver.until(lambda: answer.receipt is not None)
            await driver.sees("«stopped»", "regenerate")
            assert answer.text == text
            assert [asked["request"] for asked in driver.twin.requests("cancel")] == [answer.request]

    asyncio.run(scenario())


def test_a_lost_peer_is_noted_and_the_answer_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with interface(tmp_path, GatewayTwin(lose_a_peer)) as driver:
            await driver.keys("enter")
            await driver.sees("was lost, its chunks are computed here", "Once upon", "▲")
            assert driver.app.session.busy

    asyncio.run(scenario())


def test_regenerate_keeps_the_earlier_answer_beside_the_new_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with interface(tmp_path) as driver:
            await driver.type("Go")
            await driver.keys("enter")
            await finished(driver)
            first = driver.app.session.answer
            await driver.keys("ctrl+r")
            await driver.until(lambda: len(driver.twin.requests("generate")) == 2)
            await finished(driver)
            assert [asked["prompt"] for asked in driver.twin.requests("generate")] == ["Go", "Go"]
            assert driver.app.session.answer is not first and len(driver.app.session.conversation.turns) == 1
            await driver.until(lambda: driver.screen.count("Hello there friend") == 1)
            await driver.sees("answer 2 of 2")
            await driver.keys("alt+left")
            await driver.sees("answer 1 of 2")
            assert driver.app.session.answer is first
            await driver.keys("alt+right")
            await driver.until(lambda: driver.app.session.answer is not first)

    asyncio.run(scenario())


def test_copying_an_answer_and_its_code(tmp_path: Path) -> None:
    async def code(connection: TwinConnection, request: dict[str, Any]) -> None:
        await connection.answer(request["request"], ["Look:\n\n", "```python\n", "print(1)\n", "```\n"])

    async def scenario() -> None:
        async with interface(tmp_path, GatewayTwin(code)) as driver:
            await driver.keys("ctrl+y")
            await driver.sees("nothing to copy")
            await driver.keys("enter")
            await finished(driver)
            await driver.keys("ctrl+o")
            assert driver.app.clipboard == "print(1)"
            await driver.keys("ctrl+y")
            assert driver.app.clipboard == "Look:\n\n```python\nprint(1)\n```\n"
            await driver.sees("Copied the answer, 30 characters")

    asyncio.run(scenario())


def test_the_receipt_says_who_saw_what(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with interface(tmp_path) as driver:
            await driver.keys("enter")
            await finished(driver)
            await driver.keys("f8")
            await driver.sees("Split: who saw what", "No single peer could read anything", "the mode was split")
            await driver.keys("escape")
            await driver.until(lambda: "who saw what" in driver.screen and "Esc closes" not in driver.screen)

    asyncio.run(scenario())


def test_what_is_refused_is_said_in_the_nodes_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        twin = GatewayTwin()
        twin.refuse["generate"] = "strict needs a peer: invite one, or choose local"
        async with interface(tmp_path, twin) as driver:
            await driver.keys("enter")
            await driver.sees("✗ no answer: strict needs a peer: invite one, or choose local")

    asyncio.run(scenario())


def test_what_a_model_or_a_peer_says_is_never_a_command_to_the_screen(tmp_path: Path) -> None:
    async def hostile(connection: TwinConnection, request: dict[str, Any]) -> None:
        await connection.generation(request["request"], "note", text="[@click=app.quit]note[/] \x1b]0;x\x07")
        await connection.answer(
            request["request"], ["\x1b[2J\x1b[31mred", " [b]bold[/b] <b>html</b>", " vector<int>"]
        )

    async def scenario() -> None:
        twin = GatewayTwin(hostile)
        twin.state["peers"] = [peer(0, version="[red]9[/]\x1b[2J", operator="[@click=app.quit]x[/]")]
        async with interface(tmp_path, twin) as driver:
            await driver.keys("enter")
            await finished(driver)
            await driver.sees("[2J[31mred [b]bold[/b] <b>html</b> vector<int>", "[@click=app.quit]note[/]")
            assert "\x1b" not in driver.screen
            await driver.keys("f3")
            await driver.sees("[red]9[/][2J", "[@click=app.quit]x[/]")

    asyncio.run(scenario())


def test_privacy_is_chosen_and_asked_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with interface(tmp_path) as driver:
            await driver.keys("f7")
            await driver.sees("every pad is made on your own devices")
            await driver.keys("down", "down", "down", "enter")
            await driver.until(lambda: driver.app.session.privacy != "auto")
            chosen = driver.app.session.privacy
            assert chosen == "strict"
            await driver.sees("strict · no peers")
            await driver.keys("enter")
            await driver.until(lambda: driver.twin.requests("generate"))
            assert driver.twin.requests("generate")[0]["privacy"] == "strict"

    asyncio.run(scenario())


def test_enter_does_not_overtake_what_was_typed_before(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with interface(tmp_path) as driver:
            for character in "abcdefghijklmnop":
                driver.app.post_message(events.Key(character, character))
            driver.app.post_message(events.Key("enter", "\r"))
            await finished(driver)
            assert driver.twin.requests("generate")[0]["prompt"] == "abcdefghijklmnop"

    asyncio.run(scenario())


def test_earlier_prompts_come_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with interface(tmp_path) as driver:
            for text in ("one", "two"):
                await driver.type(text)
                await driver.keys("enter")
                await finished(driver)
            prompt = driver.app.screen.query_one(Prompt)
            await driver.keys("up")
            assert prompt.text == "two"
            await driver.keys("up")
            assert prompt.text == "one"
            await driver.keys("down", "down")
            assert prompt.text == ""

    asyncio.run(scenario())


def test_control_c_stops_then_warns_then_quits(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = Clock()
        async with interface(tmp_path, GatewayTwin(endless), clock=clock) as driver:
            await driver.keys("enter")
            await driver.until(lambda: driver.app.session.answer and driver.app.session.answer.tokens)
            await driver.keys("ctrl+c")
            assert not driver.app.session.busy
            await driver.keys("ctrl+c")
            await driver.sees("ctrl+c again quits")
            clock.now += 10
            await driver.keys("ctrl+c")
            assert driver.app.is_running
            await driver.keys("ctrl+c")
            await driver.until(lambda: not driver.app.is_running)

    asyncio.run(scenario())


def test_a_break_of_the_connection_is_told_and_mended(tmp_path: Path) -> None:
    async def scenario() -> None:
        twin = GatewayTwin(endless)
        async with interface(tmp_path, twin) as driver:
            await driver.keys("enter")
            await driver.sees("word2")
            await twin.connections[0].close()
            await driver.sees("✗ no answer: the node stopped answering")
            await driver.until(lambda: driver.app.session.link == "")
            await driver.keys("ctrl+r")
            await driver.until(lambda: len(twin.requests("generate")) == 2)
            await driver.sees("word3")

    asyncio.run(scenario())


def test_a_node_that_does_not_start_is_explained_and_tried_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        app = KekahydeApp(NodeLauncher(tmp_path, None))
        async with app.run_test() as pilot:
            driver = Driver(app, pilot, GatewayTwin())
            await driver.sees("The node did not start", "no node runs on", "kekahyde-node", "Try again")
            async with driver.twin.serve(tmp_path):
                await driver.keys("r")
                await driver.until(lambda: app.session.state.node.peer_id)
                assert not isinstance(app.screen, TroubleScreen)

    asyncio.run(scenario())


def test_a_prompt_may_be_sent_before_the_node_is_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        launcher = NodeLauncher(tmp_path, None)
        twin = GatewayTwin()
        waiting = asyncio.Event()

        async def slow() -> None:
            await waiting.wait()

        launcher.ensure = slow  # type: ignore[method-assign]
        app = KekahydeApp(launcher)
        async with app.run_test() as pilot:
            driver = Driver(app, pilot, twin)
            await driver.sees("starting your node")
            await driver.keys("enter")
            await driver.sees("Once upon a time, there was a little robot who")
            async with twin.serve(tmp_path):
                waiting.set()
                await driver.sees("Hello there friend")

    asyncio.run(scenario())
