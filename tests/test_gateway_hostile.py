"""Raw sockets against the gateway: whatever a client does, the others are served and nothing grows."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import select
import socket
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import psutil
import pytest
from gateway_fakes import Serving, serving
from waiting import until

from node.gateway.chat import sse
from node.gateway.http import connection, limits
from node.gateway.live.outbox import MAX_BEHIND_BYTES, Outbox

LIMIT_S = 10.0
IN_THE_NETWORK = 16 << 20
"""Bytes that two sockets of loopback may hold between them, and more."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("hostile")) as node:
        yield node


@pytest.fixture(autouse=True)
def still_serves(node: Serving) -> Iterator[None]:
    """After every attack the gateway answers as before."""
    yield
    with urllib.request.urlopen(node.url + "/health", timeout=LIMIT_S) as answer:
        assert json.load(answer)["status"] == "ok"
    until(lambda: not node.engine.requests(), "no request is left")


def connect(node: Serving) -> socket.socket:
    return socket.create_connection(("127.0.0.1", node.port), timeout=LIMIT_S)


def say(node: Serving, *pieces: bytes) -> bytes:
    """What the gateway answers until it hangs up."""
    with connect(node) as raw:
        for piece in pieces:
            raw.sendall(piece)
        return read_all(raw)


def read_all(raw: socket.socket) -> bytes:
    answer = b""
    try:
        while piece := raw.recv(65536):
            answer += piece
    except ConnectionResetError:
        pass
    return answer


def post(body: bytes, path: str = "/v1/completions", host: str = "127.0.0.1", extra: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


def ask(node: Serving, body: bytes, **keywords: str) -> tuple[int, dict[str, object]]:
    with connect(node) as raw:
        raw.sendall(post(body, **keywords))
        head, _, content = read_all(raw).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(content)["error"]


def generation(max_tokens: int = 400) -> bytes:
    wanted = {"model": "story", "prompt": "One day", "stream": True, "ignore_eos": True, "max_tokens": max_tokens}
    return json.dumps(wanted).encode()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[]", "invalid_json"),
        (b"null", "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b'{"a":' * 100_000, "invalid_json"),
        (b"[" * 200_000, "invalid_json"),
        (b'{"model": "story"}', "invalid_value"),
        (b'{"model": 3, "prompt": "x"}', "invalid_value"),
        (b'{"model": "story", "prompt": {"a": 1}}', "invalid_value"),
        (b'{"model": "story", "prompt": [1, true]}', "invalid_value"),
        (b'{"model": "story", "prompt": [999999999]}', "invalid_value"),
        (b'{"model": "story", "prompt": [-1]}', "invalid_value"),
        (b'{"model": "story", "prompt": "\\ud800"}', "invalid_value"),
        (b'{"model": "story", "prompt": "x", "max_tokens": 1e999}', "invalid_value"),
        (b'{"model": "story", "prompt": "x", "temperature": NaN}', "invalid_value"),
        (b'{"model": "story", "prompt": "x", "seed": 1e30}', "invalid_value"),
        (b'{"model": "story", "prompt": "x", "stop": ["' + b"a" * 5000 + b'"]}', "invalid_value"),
        (b'{"model": "story", "prompt": "x", "stream": "yes"}', "invalid_value"),
        (b'{"model": "story", "prompt": "x", "stream_options": {}}', "invalid_value"),
        (b'{"model": "story", "prompt": []}', "invalid_value"),
    ],
)
def test_bodies_that_make_no_sense(node: Serving, body: bytes, code: str) -> None:
    status, error = ask(node, body)
    assert (status, error["code"]) == (400, code)
    assert len(str(error["message"])) < 1000


def test_foreign_hosts_origins_and_methods(node: Serving) -> None:
    body = generation()
    assert ask(node, body, host="evil.example")[1]["code"] == "foreign_host"
    assert ask(node, body, extra="Origin: https://evil.example\r\n")[1]["code"] == "foreign_origin"
    assert ask(node, body, path="/control")[1]["code"] == "unknown_op"
    assert ask(node, body, path="/nothing")[0] == 404
    assert ask(node, body, path="/v1/models")[1]["code"] == "method_not_allowed"
    assert ask(node, body, extra="Content-Encoding: gzip\r\n")[1]["code"] == "unsupported_encoding"


def test_a_page_on_loopback_may_read_answers(node: Serving) -> None:
    head = b"OPTIONS /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += b"Origin: http://localhost:3000\r\n\r\n"
    answer = say(node, head)
    assert answer.startswith(b"HTTP/1.1 204") and b"Access-Control-Allow-Origin: http://localhost:3000" in answer
    assert b"Access-Control-Allow-Headers: *, Authorization\r\n" in answer
    assert b"Access-Control-Expose-Headers: Retry-After\r\n" in answer, "how long a full queue is to be waited for"
    evil = head.replace(b"http://localhost:3000", b"http://evil.example")
    answer = say(node, evil)
    assert answer.startswith(b"HTTP/1.1 403") and b"Access-Control-Allow-Origin" not in answer


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00" * 4096,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x55" * 200,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: 1\r\n" % index for index in range(5000)) + b"\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: close\r\n\r\n",
        b"GET http://evil.example/v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    ],
)
def test_bytes_that_are_no_request(
    node: Serving, request_bytes: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "FIRST_REQUEST_LIMIT_S", 0.5)
    answer = say(node, request_bytes)
    assert answer == b"" or answer.split()[1].startswith(b"4"), answer[:200]
    assert not [record for record in caplog.records if record.exc_info], "who sends no HTTP fills no log"


def test_who_hangs_up_on_one_side_has_left(node: Serving) -> None:
    with connect(node) as raw:
        raw.sendall(post(generation()))
        raw.shutdown(socket.SHUT_WR)
        until(lambda: not node.engine.requests(), "the work ended", 1.0)


def test_a_huge_body_is_refused_before_it_is_read(node: Serving) -> None:
    with connect(node) as raw:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {1 << 40}\r\n\r\n"
        raw.sendall(head.encode())
        said = b""
        with contextlib.suppress(TimeoutError):  # whoever waits for the body says nothing
            said = raw.recv(65536)
        assert said.startswith(b"HTTP/1.1 413")


def test_a_huge_body_without_a_length_is_cut_off(node: Serving) -> None:
    before = psutil.Process().memory_info().rss
    with connect(node) as raw:
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        answer = b""
        try:
            for _ in range(64):
                raw.sendall(piece)
            answer = read_all(raw)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert answer == b"" or answer.startswith(b"HTTP/1.1 413")
    assert psutil.Process().memory_info().rss - before < 64 << 20


def test_a_body_without_an_end_is_refused_where_it_is_too_large(node: Serving) -> None:
    """Whoever sends on and on is told at once, and what it sends stays in the network."""
    told: Future[int] = Future()
    sent = 0

    def listen() -> None:
        answer = raw.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413"), answer[:100]
        told.set_result(sent)

    with connect(node) as raw:
        listener = threading.Thread(target=listen)
        listener.start()
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while sent < 256 << 20:
                raw.sendall(piece)
                sent += len(piece)
        listener.join(LIMIT_S)
    assert told.result(0) <= limits.MAX_BODY_BYTES + IN_THE_NETWORK
    assert sent <= connection.MAX_TAKEN_BYTES + IN_THE_NETWORK


def test_a_body_in_tiny_chunks_is_refused_for_its_form(node: Serving) -> None:
    with connect(node) as raw:
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        sent = 0
        raw.setblocking(False)
        answer = b""
        while not answer and sent < 64 << 20:
            readable, writable, _ = select.select([raw], [raw], [], LIMIT_S)
            assert readable or writable, "it neither answers nor reads"
            if readable:
                answer = raw.recv(65536)
            elif writable:
                sent += raw.send(b"1\r\nx\r\n" * 1000)
    assert answer.startswith(b"HTTP/1.1 413")
    assert sent <= 2 * limits.MAX_CHUNKING_BYTES + IN_THE_NETWORK


def test_a_body_in_chunks_that_is_not_too_large_is_read(node: Serving) -> None:
    body = json.dumps({"model": "story", "prompt": "One day", "max_tokens": 1, "user": "u" * (4 << 20)}).encode()
    head = (
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    pieces = [body[at : at + 4096] for at in range(0, len(body), 4096)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    assert say(node, head, chunks + b"0\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_a_body_that_does_not_come_is_not_waited_for(node: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.gateway.http.app.BODY_LIMIT_S", 0.2)
    with connect(node) as raw:
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
        assert raw.recv(65536).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("sent", [b"", b"GET /v1/models HT", b"GET /v1/models HTTP/1.1\r\nHost: lo"])
def test_half_a_request_does_not_keep_its_connection(
    node: Serving, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "FIRST_REQUEST_LIMIT_S", 0.2)
    with connect(node) as raw:
        raw.sendall(sent)
        assert read_all(raw) == b""


def test_thousands_of_idle_connections_leave_room_for_work(node: Serving) -> None:
    """More than there are slots: the oldest idle ones go, the newest request is served, a running stream goes on."""
    with connect(node) as stream:
        stream.sendall(post(generation()))
        assert stream.recv(15).startswith(b"HTTP/1.1 200")
        idle = []
        try:
            for _ in range(limits.MAX_CONNECTIONS + 300):
                idle.append(connect(node))
            with urllib.request.urlopen(node.url + "/v1/models", timeout=LIMIT_S) as answer:
                assert json.load(answer)["data"][0]["id"] == "story"
            assert b"data: [DONE]" in read_all(stream)
            idle[0].settimeout(LIMIT_S)
            assert read_all(idle[0]) == b"", "the oldest made room"
        finally:
            for raw in idle:
                raw.close()


def test_a_reader_that_takes_nothing_is_hung_up_and_its_work_ends(
    node: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "WRITE_LIMIT_S", 0.3)
    monkeypatch.setattr(sse, "frame", lambda value: b"data: " + b"x" * 200_000 + b"\n\n")
    monkeypatch.setattr("node.gateway.openai.endpoints.frame", sse.frame)
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", node.port))
        raw.sendall(post(generation()))
        until(lambda: node.engine.requests(), "it began")
        until(lambda: not node.engine.requests(), "nobody computes for it")


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_connection_that_goes_ends_its_work(node: Serving, how: str) -> None:
    raw = connect(node)
    raw.sendall(post(generation()))
    assert raw.recv(15).startswith(b"HTTP/1.1 200")
    if how == "reset":
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    raw.close()
    until(lambda: not node.engine.requests(), "the work ended", 1.0)


def test_a_stream_without_news_says_so_now_and_then(node: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.0005)
    with connect(node) as raw:
        raw.sendall(post(generation(64)))
        answer = read_all(raw)
    assert b": keep-alive\n\n" in answer and answer.rstrip(b"\r\n0").endswith(b"data: [DONE]")


def test_too_many_requests_are_a_429(node: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.engine.engine.MAX_REQUESTS", 0)
    status, error = ask(node, generation())
    assert (status, error["code"], error["type"]) == (429, "queue_full", "rate_limit_error")


def test_no_token_of_a_prompt_is_logged(node: Serving, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    ask(node, b'{"model": "story", "prompt": "zebra quagmire xylophone", "n": 99}')
    with connect(node) as raw:
        raw.sendall(post(json.dumps({"model": "story", "prompt": "zebra quagmire", "max_tokens": 2}).encode()))
        read_all(raw)
    assert "zebra" not in caplog.text and "quagmire" not in caplog.text


def test_an_outbox_drops_what_may_go_and_then_gives_up() -> None:
    outbox = Outbox()
    frame = "x" * (MAX_BEHIND_BYTES // 4)
    assert all(outbox.put(frame, may_drop=True) for _ in range(5))
    assert not outbox.put(frame, may_drop=True), "more than a mebibyte behind: it may go"
    taken = sum(outbox.put(frame) for _ in range(8))
    assert 3 <= taken < 8 and outbox.overrun


def test_a_socket_file_of_another_user_would_not_open(node: Serving) -> None:
    path = Path(node.data_dir) / "control.sock"
    assert path.stat().st_mode & 0o077 == 0


RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"
"""SO_LINGER of 0 seconds: closing sends RST."""
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def masked(text: bytes) -> bytes:
    """A text frame of a client, under a mask of zeros."""
    size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
    return b"\x81" + size + bytes(4) + text


SUBSCRIBE = masked(b'{"op": "subscribe", "topics": ["state", "chunks", "logs"], "id": 1}')
GENERATE = masked(b'{"op": "generate", "request": "r", "prompt": "One day", "max_tokens": 400, "ignore_eos": true}')
CHUNKED = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n"
ATTACKS: dict[str, tuple[bytes, int]] = {
    "in the head": (b"POST /v1/completions HTTP/1.1\r\nHost: lo", 0),
    "in the body": (post(generation())[:-5], 0),
    "in a chunk": (CHUNKED, 0),
    "before the answer": (post(generation()), 0),
    "before a whole answer": (post(generation().replace(b"true", b"false")), 0),
    "as a stream begins": (post(generation()), 1),
    "in a stream": (post(generation()), 3000),
    "before a list of models": (b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n", 0),
    "before the metrics": (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 0),
    "before the upgrade": (UPGRADE, 0),
    "in a WebSocket": (UPGRADE, 1),
    "in a WebSocket with news": (UPGRADE + SUBSCRIBE + GENERATE, 4000),
    "in a WebSocket that asks": (UPGRADE + SUBSCRIBE + GENERATE, 1),
    "in a frame": (UPGRADE + GENERATE[:20], 200),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_reset_leaves_no_trace_in_the_log(node: Serving, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whenever a client tears its connection: it has left, and nothing has failed."""
    sent, num_read = ATTACKS[name]
    for _ in range(10):
        raw = connect(node)
        raw.sendall(sent)
        received = 0
        while received < num_read:
            received += len(raw.recv(num_read - received))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        raw.close()
    until(lambda: not node.engine.requests(), "no request is left")
    with urllib.request.urlopen(node.url + "/health", timeout=LIMIT_S) as answer:
        assert answer.status == 200
    gc.collect()  # a task whose failure nobody asked for says so when it is collected
    assert not [record.getMessage() for record in caplog.records if record.exc_info]
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
