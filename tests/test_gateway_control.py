"""The control socket: how commands of the same user reach the running node."""

from __future__ import annotations

import json
import socket
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_parts import identity

from node.config import NodeConfig
from node.engine import Engine
from node.errors import ConfigError, NodeNotRunningError, OperationError
from node.gateway.client.client import call_node
from node.gateway.client.connection import node_runs
from node.gateway.config import GatewayConfig
from node.gateway.server import Gateway
from node.node import Node
from node.places import POINTER_NAME, socket_path, token_of
from node.store.library import Library


@pytest.fixture
def node() -> Iterator[Node]:
    with Node(NodeConfig(identity(1), None), []) as node:
        yield node


@pytest.fixture
def engine(node: Node, tmp_path: Path) -> Iterator[Engine]:
    with Engine(node, Library(tmp_path / "models")) as engine:
        yield engine


def post(url: str, body: bytes, **headers: str) -> tuple[int, dict[str, object]]:
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.load(exc)


def test_a_command_reaches_the_node_and_hears_its_refusals(node: Node, engine: Engine, tmp_path: Path) -> None:
    assert not node_runs(tmp_path)
    with Gateway(node, engine, GatewayConfig(tmp_path)):
        assert node_runs(tmp_path)
        assert call_node(tmp_path, "peers") == {"peers": []}
        with pytest.raises(OperationError, match="no operation is called 'nonsense'"):
            call_node(tmp_path, "nonsense")
    with pytest.raises(NodeNotRunningError, match="no node runs on"):
        call_node(tmp_path, "peers")


def test_only_this_user_can_open_the_socket_and_read_the_token(node: Node, engine: Engine, tmp_path: Path) -> None:
    with Gateway(node, engine, GatewayConfig(tmp_path)):
        assert stat.S_IMODE(socket_path(tmp_path).stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "gateway.token").stat().st_mode) == 0o600
    assert not socket_path(tmp_path).exists()


def test_a_stale_socket_is_replaced_and_a_long_path_gets_a_short_one(
    node: Node, engine: Engine, tmp_path: Path
) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    for data_dir in (tmp_path, deep):
        socket_path(data_dir).touch()
        with Gateway(node, engine, GatewayConfig(data_dir)):
            assert call_node(data_dir, "peers") == {"peers": []}
            assert (data_dir / POINTER_NAME).exists() == (data_dir == deep)
            folder = socket_path(data_dir).parent
            assert data_dir == tmp_path or stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert data_dir == tmp_path or not folder.exists()


def test_management_over_tcp_needs_the_token(node: Node, engine: Engine, tmp_path: Path) -> None:
    with Gateway(node, engine, GatewayConfig(tmp_path)) as gateway:
        url = f"{gateway.url}/control"
        status, answer = post(url, b'{"op": "peers"}')
        assert (status, answer) == (200, {"ok": True, "result": {"peers": []}}), "reading needs none on loopback"
        status, answer = post(url, b'{"op": "nonsense"}', Authorization=f"Bearer {token_of(tmp_path)}")
        assert status == 404


def test_a_port_in_use_is_one_clear_sentence(node: Node, engine: Engine, tmp_path: Path) -> None:
    with Gateway(node, engine, GatewayConfig(tmp_path)) as gateway:
        port = int(str(gateway.url).rpartition(":")[2])
        other = GatewayConfig(tmp_path / "other", port=port)
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}: Address already in use.*--gateway"):
            Gateway(node, engine, other).__enter__()


def test_without_tcp_the_socket_remains(node: Node, engine: Engine, tmp_path: Path) -> None:
    with Gateway(node, engine, GatewayConfig(tmp_path, tcp=False)) as gateway:
        assert gateway.url is None
        assert call_node(tmp_path, "peers") == {"peers": []}


def test_a_data_directory_keeps_its_port(node: Node, engine: Engine, tmp_path: Path) -> None:
    with Gateway(node, engine, GatewayConfig(tmp_path)) as first:
        url = first.url
    with Gateway(node, engine, GatewayConfig(tmp_path)) as again:
        assert again.url == url
    assert url is not None
    port = int(url.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)), Gateway(node, engine, GatewayConfig(tmp_path)) as moved:
        assert moved.url is not None and moved.url != url
    with Gateway(node, engine, GatewayConfig(tmp_path)) as back:
        assert back.url == url, "the port that was taken once is still its own"
