"""A report tells others what is wrong, and nothing about who it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_parts import identity

from node.doctor.finding import broken, ok
from node.doctor.report import Redactor, report

PEER = identity(1).peer_id


def test_nothing_that_identifies_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "annas-laptop")
    texts = [
        f"peer {PEER} at /ip4/192.168.1.7/tcp/4711/p2p/{PEER}",
        "at /ip6/fe80::1c2d:3e4f/tcp/1 and /dns4/home.example.org/tcp/2",
        f"{tmp_path}/identity.key on annas-laptop in {Path.home()}/x",
        f"the key {'ab' * 32}, the line kekahyde:1:AbC-_9, the key kek-{'x' * 43}",
    ]
    told = json.dumps(report([ok("a", text) for text in texts] + [broken("b", "c", texts[0])], tmp_path))
    for secret in (
        PEER,
        "192.168",
        "fe80",
        "1c2d",
        "example",
        str(tmp_path),
        "annas",
        str(Path.home()),
        "abab",
        "AbC",
    ):
        assert secret not in told
    assert "kek-x" not in told
    findings = json.loads(told)["findings"]
    assert findings[0]["text"] == findings[4]["next_step"] == "peer PEER-1 at /ip4/ADDRESS-1/tcp/4711/p2p/PEER-1"


@pytest.mark.parametrize("text", ["2026-11-27 12:34:56 UTC", "127.0.0.1:11435", "version 0.1.0", "::1", "5 of 6"])
def test_what_identifies_nobody_stays(text: str, tmp_path: Path) -> None:
    assert Redactor(tmp_path)(text) == text
