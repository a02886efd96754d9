"""Pages in a real Chromium ask the gateway: what a browser says of a page is what the browser sends, not a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser import needs_chromium, open_browser
from gateway_fakes import serving

SDK_HEADERS = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    "OpenAI-Organization": "none",
    "X-Stainless-Arch": "unknown",
    "X-Stainless-Lang": "js",
    "X-Stainless-OS": "Unknown",
    "X-Stainless-Package-Version": "6.1.0",
    "X-Stainless-Retry-Count": "0",
    "X-Stainless-Runtime": "browser:chrome",
    "X-Stainless-Runtime-Version": "150.0.0",
    "X-Stainless-Timeout": "600",
}
"""What OpenAI's library for JavaScript sends from a page, beside the key."""
ASK = """
const [url, options, done] = arguments;
fetch(url, options).then(
  async answer => done({status: answer.status, text: await answer.text(), retry: answer.headers.get('retry-after')}),
  error => done({blocked: String(error)}),
);
"""
OPEN_SOCKET = """
const [url, done] = arguments;
const socket = new WebSocket(url);
socket.onmessage = event => done({said: JSON.parse(event.data).type});
socket.onerror = () => done({blocked: true});
"""
COMPLETION = '{"model": "story", "prompt": "Once upon a time", "max_tokens": 4, "privacy": "local"}'

pytestmark = needs_chromium


class EmptyPage(BaseHTTPRequestHandler):
    """Any path is a page with nothing in it."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>page</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_said: Any) -> None:
        pass


@contextmanager
def pages() -> Iterator[int]:
    """The port of a server of pages."""
    with ThreadingHTTPServer(("127.0.0.1", 0), EmptyPage) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    driver = open_browser(tmp_path_factory.mktemp("browser"), "--host-resolver-rules=MAP evil.example 127.0.0.1")
    try:
        yield driver
    finally:
        driver.quit()


def ask(browser: Any, url: str, **options: Any) -> dict[str, Any]:
    """What the page that is open gets to read."""
    answer: dict[str, Any] = browser.execute_async_script(ASK, url, options)
    return answer


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_a_page_of_this_device_may_read_whatever_name_it_came_by(browser: Any, tmp_path: Path, name: str) -> None:
    with serving(tmp_path) as node, pages() as port:
        browser.get(f"http://{name}:{port}/")
        for url in (f"http://127.0.0.1:{node.port}", f"http://localhost:{node.port}"):
            assert ask(browser, f"{url}/v1/models")["status"] == 200
            headers = {**SDK_HEADERS, "Authorization": "Bearer none"}
            answer = ask(browser, f"{url}/v1/completions", method="POST", headers=headers, body=COMPLETION)
            assert answer.get("status") == 200, answer
            assert '"finish_reason": "length"' in answer["text"]
            assert ask(browser, f"{url}/control", method="POST", body='{"op": "invite"}')["status"] == 401
            socket = browser.execute_async_script(OPEN_SOCKET, url.replace("http", "ws") + "/ws")
            assert socket == {"said": "hello"}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_page_of_another_site_may_not(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path) as node, pages() as port:
        browser.get(f"http://evil.example:{port}/")
        for options in ({}, {"method": "POST", "body": COMPLETION}, {"headers": SDK_HEADERS}):
            assert "blocked" in ask(browser, f"{node.url}/v1/models", **options)
        rebound = ask(browser, f"http://evil.example:{node.port}/v1/models")
        assert "blocked" in rebound, rebound
        assert browser.execute_async_script(OPEN_SOCKET, node.url.replace("http", "ws") + "/ws") == {"blocked": True}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_beyond_loopback_the_token_is_asked_of_the_request_and_not_of_the_preflight(
    browser: Any, tmp_path: Path
) -> None:
    with serving(tmp_path, host="0.0.0.0") as node, pages() as port:
        token = (tmp_path / "gateway.token").read_text().strip()
        browser.get(f"http://localhost:{port}/")
        url = f"http://127.0.0.1:{node.port}/v1/completions"
        for shown, status in ((token, 200), (token[:-1], 401)):
            headers = {**SDK_HEADERS, "Authorization": f"Bearer {shown}"}
            answer = ask(browser, url, method="POST", headers=headers, body=COMPLETION)
            assert answer.get("status") == status, answer
        assert ask(browser, url, method="POST", headers=SDK_HEADERS, body=COMPLETION)["status"] == 401
