"""The interface in a browser: the real program with --web, a headless Chromium, keys sent, the terminal read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyte
import pytest
from browser import needs_chromium, open_browser

from scripts.harness.swarm import Swarm

DEADLINE_S = 90.0
COLLECT = """
window.drawn = [];
const Original = window.WebSocket;
window.WebSocket = class extends Original {
  constructor(...given) {
    super(...given);
    this.addEventListener('message', async event => {
      if (typeof event.data === 'string') return;
      const bytes = event.data instanceof Blob ? await event.data.arrayBuffer() : event.data;
      window.drawn.push(...new Uint8Array(bytes));
    });
  }
};
"""
"""The page draws on a canvas, so its text is read from what it was told to draw."""
TAKE = "return window.drawn.splice(0)"
COLUMNS, ROWS = 160, 60

pytestmark = pytest.mark.swarm


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    with Swarm() as nodes:
        nodes.start(2)
        yield nodes


@pytest.fixture(scope="module")
def page(swarm: Swarm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address that the program prints; it and its node end with the test."""
    data_dir = tmp_path_factory.mktemp("web") / "data"
    command = [sys.executable, "-m", "node", "--web", "--data-dir", str(data_dir), "--threads", "1"]
    process = subprocess.Popen(
        [*command, *swarm.bootstrap()], stdout=subprocess.PIPE, text=True, env=swarm.environment
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        process.stdout.close()
        assert not (data_dir / "control.sock").exists(), "the node outlived the interface that started it"


def status_of(address: str, **headers: str) -> int:
    """What a plain request gets, redirects not followed beyond the first page."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=20) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_only_who_has_the_address_gets_in(page: str) -> None:
    root, token = page.split("?token=")
    assert status_of(root) == 403
    assert status_of(f"{root}?token={token[:-1]}x") == 403
    assert status_of(f"{root}static/js/textual.js") == 403
    assert status_of(f"{root}static/js/textual.js?token={token}") == 200
    assert status_of(f"{root}static/js/textual.js?token={token}", Host="evil.example") == 403
    assert status_of(f"{root}ws?token={token}", Origin="http://evil.example") == 403
    assert status_of(f"{root}ws?token={token}") == 403


@needs_chromium
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_prompt_tokens_and_peers_in_a_browser(page: str, tmp_path: Path) -> None:
    from selenium.common.exceptions import TimeoutException
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.wait import WebDriverWait

    browser = open_browser(tmp_path)
    try:
        browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": COLLECT})
        browser.get(page)
        screen = pyte.Screen(COLUMNS, ROWS)
        stream = pyte.ByteStream(screen)
        wait = WebDriverWait(browser, DEADLINE_S, poll_frequency=0.1)

        def sees(*texts: str) -> None:
            def drawn(driver: Any) -> bool:
                stream.feed(bytes(driver.execute_script(TAKE)))
                return all(text in "\n".join(screen.display) for text in texts)

            try:
                wait.until(drawn)
            except TimeoutException:
                now = "\n".join(line.rstrip() for line in screen.display)
                pytest.fail(f"not all of {texts} in {DEADLINE_S:.0f} s; the screen was:\n{now}")

        def press(*keys: str) -> None:
            ActionChains(browser).send_keys(*keys).perform()

        sees("continues stories", "2 peers can help")
        assert "token=" not in browser.current_url
        press("Once upon a time, there was a little cat")
        sees("there was a little cat")  # before the answer: a long one scrolls the prompt out of sight
        press(Keys.ENTER)
        sees("tok/s", "tokens · first after")
        keep(browser, "web-chat")
        press(Keys.F3)
        sees("● alive", "RTT", "● alive, linked")
        keep(browser, "web-peers")
    finally:
        browser.quit()


def keep(browser: Any, name: str) -> None:
    """Keep a picture where the variable KEKAHYDE_SCREENS names a folder."""
    if "KEKAHYDE_SCREENS" in os.environ:
        folder = Path(os.environ["KEKAHYDE_SCREENS"])
        folder.mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(str(folder / f"{name}.png"))
