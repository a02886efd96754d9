"""Who may ask what, decided purely: every Host, Origin and token that matters."""

from __future__ import annotations

import pytest

from node.gateway.http.access import AccessRules, Caller
from node.gateway.http.addresses import host_of
from node.gateway.http.errors import ApiError

TOKEN = "t" * 43
LOOPBACK = AccessRules(TOKEN)
BEYOND = AccessRules(TOKEN, beyond_loopback=True)
SOCKET = AccessRules(TOKEN, local_socket=True)


def refusal(
    rules: AccessRules, host: str, origin: str | None = None, site: str | None = None, token: str = ""
) -> str:
    """Code of the refusal; nothing where the request passes."""
    try:
        rules.check(Caller(host, origin, site, token or None))
    except ApiError as exc:
        assert exc.status in (401, 403)
        return exc.code or ""
    return ""


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:11435", "localhost:11435", "localhost", "LOCALHOST:1", "[::1]:11435", "127.9.9.9", "localhost."],
)
def test_names_of_loopback_pass(host: str) -> None:
    assert refusal(LOOPBACK, host) == ""


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:11435",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "192.168.1.4:11435",
        "0.0.0.0:11435",
        "user@localhost",
        "localhost:99999",
        "localhost/x",
        "localhost:port",
        "[::1",
        "169.254.169.254",
    ],
)
def test_any_other_host_is_foreign(host: str) -> None:
    assert refusal(LOOPBACK, host) == "foreign_host"


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1", "https://[::1]:8000"])
def test_pages_of_this_device_may_ask(origin: str) -> None:
    assert refusal(LOOPBACK, "127.0.0.1:1", origin) == ""


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        "file://",
        "http://localhost.evil.example",
        "http://192.168.1.4",
        "localhost",
    ],
)
def test_pages_of_others_may_not(origin: str) -> None:
    assert refusal(LOOPBACK, "127.0.0.1:1", origin) == "foreign_origin"


def test_a_browser_that_says_where_a_page_is_from_is_believed() -> None:
    assert refusal(LOOPBACK, "127.0.0.1:1", None, "cross-site") == "foreign_origin"
    assert refusal(LOOPBACK, "127.0.0.1:1", None, "same-origin") == ""
    assert refusal(LOOPBACK, "127.0.0.1:1", "https://evil.example", "same-origin") == "foreign_origin"


def test_localhost_and_127_0_0_1_are_two_sites_to_a_browser_and_one_device_here() -> None:
    assert refusal(LOOPBACK, "127.0.0.1:1", "http://localhost:3000", "cross-site") == ""
    assert refusal(LOOPBACK, "localhost:1", "http://127.0.0.1:3000", "cross-site") == ""
    assert refusal(LOOPBACK, "127.0.0.1:1", "null", "cross-site") == "foreign_origin"


def test_beyond_loopback_everything_needs_the_token_and_a_name_is_foreign() -> None:
    assert refusal(BEYOND, "192.168.1.4:80") == "invalid_token"
    assert refusal(BEYOND, "192.168.1.4:80", token="x") == "invalid_token"
    assert refusal(BEYOND, "192.168.1.4:80", token=TOKEN) == ""
    assert refusal(BEYOND, "127.0.0.1:80") == "invalid_token", "a proxy on this device is no proof"
    assert refusal(BEYOND, "evil.example") == refusal(BEYOND, "evil.example", token="x") == "foreign_host"
    assert refusal(BEYOND, "host.docker.internal:11435", token=TOKEN) == "", "a rebound page has no token"
    assert refusal(BEYOND, "192.168.1.4:80", "http://192.168.1.4:80", token=TOKEN) == ""
    assert refusal(BEYOND, "192.168.1.4:80", "http://192.168.1.5:80", token=TOKEN) == "foreign_origin"


def preflight_refusal(rules: AccessRules, host: str, origin: str) -> str:
    """Code of the refusal of a browser's question, which never carries a token."""
    try:
        rules.check_preflight(Caller(host, origin, "cross-site", None))
    except ApiError as exc:
        assert exc.status == 403
        return exc.code or ""
    return ""


def test_a_browsers_question_is_answered_without_the_token_and_to_no_foreign_page() -> None:
    for host in ("192.168.1.4:80", "127.0.0.1:80", "host.docker.internal:80"):
        assert preflight_refusal(BEYOND, host, "http://localhost:3000") == ""
        assert preflight_refusal(BEYOND, host, "http://evil.example") == "foreign_origin"
        assert refusal(BEYOND, host, "http://localhost:3000") != "", "the request itself must show it"
    assert preflight_refusal(BEYOND, "", "http://localhost:3000") == "foreign_host"
    assert preflight_refusal(LOOPBACK, "evil.example", "http://localhost:3000") == "foreign_host"


def test_management_needs_the_token_but_on_the_socket() -> None:
    for rules, token, passes in [
        (LOOPBACK, None, False),
        (LOOPBACK, TOKEN[:-1], False),
        (LOOPBACK, "é" * 43, False),
        (LOOPBACK, TOKEN, True),
        (SOCKET, None, True),
    ]:
        caller = Caller("127.0.0.1", None, None, token)
        if passes:
            rules.require_token(caller)
        else:
            with pytest.raises(ApiError, match="file gateway"):
                rules.require_token(caller)
    assert refusal(SOCKET, "anything at all", "https://evil.example") == ""


def test_a_host_is_read_without_port_and_brackets() -> None:
    assert [host_of(text) for text in ("a.b:1", "[::1]:2", "::1", "a b")] == ["a.b", "::1", None, "a b"]
