"""Keys for programs: what they open beyond loopback, what they do not, and the privacy that they demand."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_fakes import Serving, serving

from node.errors import ConfigError
from node.gateway.http.errors import ApiError
from node.gateway.http.keys import KEYS_NAME, Key, KeyBook
from node.privacy import Privacy
from scripts.harness import forked

TEXT = {"model": "story", "prompt": "Once", "max_tokens": 2}


def ask(url: str, body: dict[str, Any] | None = None, **headers: str) -> tuple[int, dict[str, Any]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json", **named})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A node whose gateway counts as one beyond loopback: 127.0.0.2 would not do, 0.0.0.0 does."""
    with serving(tmp_path_factory.mktemp("keys"), host="0.0.0.0") as node:
        node.url = f"http://127.0.0.1:{node.port}"
        yield node


def test_a_key_opens_answers_and_nothing_else(node: Serving) -> None:
    book = KeyBook(node.data_dir)
    secret = book.add("laptop", None, None)
    bearer = {"Authorization": f"Bearer {secret}"}
    assert ask(f"{node.url}/v1/models")[0] == 401
    assert ask(f"{node.url}/v1/models", Authorization="Bearer kek-wrong")[0] == 401
    assert ask(f"{node.url}/v1/models", **bearer)[0] == 200
    assert ask(f"{node.url}/v1/completions", TEXT, **bearer)[0] == 200
    assert ask(f"{node.url}/v1/completions", TEXT, x_api_key=secret)[0] == 200
    assert ask(f"{node.url}/v1/models", Host="box.example", **bearer)[0] == 200, "a rebound page has no key"
    assert ask(f"{node.url}/v1/models", Host="box.example")[0] == 403
    for path, body in (("/control", {"op": "peers"}), ("/metrics", None), ("/api/pull", {"model": "smollm2"})):
        assert ask(f"{node.url}{path}", body, **bearer)[0] == 401, path
    book.remove("laptop")
    assert ask(f"{node.url}/v1/models", **bearer)[0] == 401, "a removed key opens nothing any more"


def test_a_key_demands_privacy(node: Serving) -> None:
    secret = KeyBook(node.data_dir).add("strict", Privacy.STRICT, None)
    for headers in ({"Authorization": f"Bearer {secret}"}, {"x_api_key": secret}):
        status, refused = ask(f"{node.url}/v1/completions", {**TEXT, "privacy": "split"}, **headers)
        assert status == 403 and "no less than strict" in refused["error"]["message"]
        status, answer = ask(f"{node.url}/v1/completions", TEXT, **headers)
        assert status == 200 and answer["kekahyde"]["asked"] == "strict", "auto becomes what the key demands"
        status, answer = ask(f"{node.url}/v1/completions", {**TEXT, "privacy": "local"}, **headers)
        assert status == 200 and answer["kekahyde"]["mode"] == "local"


def test_a_key_has_a_rate(node: Serving) -> None:
    secret = KeyBook(node.data_dir).add("slow", None, 2)
    answers = [ask(f"{node.url}/v1/completions", TEXT, x_api_key=secret) for _ in range(3)]
    assert [status for status, _ in answers] == [200, 200, 429]
    assert ask(f"{node.url}/v1/models", x_api_key=secret)[0] == 200


@pytest.mark.parametrize(
    ("least", "allowed"),
    [
        (None, {"auto": "auto", "trusted": "trusted", "split": "split", "strict": "strict", "local": "local"}),
        (Privacy.SPLIT, {"auto": "split", "split": "split", "strict": "strict", "local": "local"}),
        (Privacy.STRICT, {"auto": "strict", "strict": "strict", "local": "local"}),
        (Privacy.LOCAL, {"auto": "local", "local": "local"}),
    ],
)
def test_no_mode_below_the_least(least: Privacy | None, allowed: dict[str, str]) -> None:
    key = Key("k", "", least)
    for asked in Privacy:
        if asked.value in allowed:
            assert key.privacy(asked).value == allowed[asked.value]
        else:
            with pytest.raises(ApiError, match="no less than"):
                key.privacy(asked)


def test_only_hashes_are_kept_and_bad_files_are_named(tmp_path: Path) -> None:
    book = KeyBook(tmp_path)
    secret = book.add("a", Privacy.STRICT, 5)
    path = tmp_path / KEYS_NAME
    assert secret not in path.read_text() and stat.S_IMODE(path.stat().st_mode) == 0o600
    found = KeyBook(tmp_path).find(secret)
    assert found is not None and found.min_privacy is Privacy.STRICT and found.per_minute == 5
    assert secret not in repr(found) and found.sha256 not in repr(found)
    for name in ("a", "", "x y"):
        with pytest.raises(ConfigError):
            book.add(name, None, None)
    with pytest.raises(ConfigError, match="the keys are: a"):
        book.remove("b")
    path.write_text("{}")
    with pytest.raises(ConfigError, match=KEYS_NAME):
        KeyBook(tmp_path).find(secret)


def test_keys_by_command(tmp_path: Path) -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "node", "key", *arguments, "--data-dir", str(tmp_path)]
        return forked.run(command)

    secret = call("add", "laptop", "--min-privacy", "strict").stdout.strip()
    assert secret.startswith("kek-") and len(secret) > 40
    assert json.loads(call("list", "--json").stdout)["keys"] == [
        {"name": "laptop", "min_privacy": "strict", "per_minute": None}
    ]
    assert "at least strict" in call("list").stdout
    assert call("remove", "laptop").returncode == 0
    again = call("remove", "laptop")
    assert again.returncode == 1 and "the keys are: none" in again.stderr
