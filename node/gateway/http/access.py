"""Decides from Host, Origin and token who may ask for what; no I/O.

Any page in a browser can reach loopback. Its requests are refused because their Host (after DNS rebinding) or
Origin is foreign.
"""

from __future__ import annotations

import hmac
from typing import ClassVar
from urllib.parse import urlsplit

from msgspec import Struct

from node.gateway.http.addresses import host_of, is_address, is_loopback
from node.gateway.http.errors import ApiError
from node.gateway.http.keys import Key
from protocol.discreet import Discreet


class Caller(Discreet, Struct, frozen=True):
    """What a request says about its source."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("token", "key")
    host: str
    origin: str | None
    fetch_site: str | None
    """The header `Sec-Fetch-Site`, which browsers set and pages cannot."""
    token: str | None
    key: Key | None = None
    """The key for programs that it shows, if it asks for what keys are for."""


class AccessRules(Discreet, Struct, frozen=True):
    """What one site of the gateway (TCP or Unix socket) accepts."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("token",)
    token: str
    local_socket: bool = False
    """For the Unix socket: its file mode has already decided who may connect, and no browser can open it."""
    beyond_loopback: bool = False

    def check(self, caller: Caller) -> None:
        """Raises ApiError 403 for a foreign Host or Origin, and 401 if a token is needed and missing."""
        self._check_source(caller, self._own_host(caller))
        if self.beyond_loopback and caller.key is None:
            self.require_token(caller)

    def check_preflight(self, caller: Caller) -> None:
        """Like `check`, for a browser's preflight. A preflight never has the token; the request that follows must
        have it. So beyond loopback any name passes here: the answer reveals only that the page may ask."""
        self._check_source(caller, self._own_host(caller) or (self.beyond_loopback and bool(host_of(caller.host))))

    def _check_source(self, caller: Caller, own_host: bool) -> None:
        if self.local_socket:
            return
        if not own_host:
            raise ApiError(
                403,
                f"the Host {caller.host!r} is not this gateway's: use http://127.0.0.1 and its port",
                "foreign_host",
            )
        if self._foreign_page(caller):
            raise ApiError(
                403,
                f"a page from {caller.origin or 'another site'} may not use this gateway: "
                "open it from a page on localhost, or call it from a program",
                "foreign_origin",
            )

    def require_token(self, caller: Caller) -> None:
        """Raises ApiError 401 without a valid token; for management, and for everything beyond loopback."""
        if self.local_socket:
            return
        if not self._shows_token(caller):
            raise ApiError(
                401,
                "this needs the token in the file gateway.token of the node's data directory: "
                "send it as `Authorization: Bearer TOKEN`, or use the Unix socket; "
                "for answers a key is enough (`kekahyde-node key add NAME`)",
                "invalid_token",
            )

    def _shows_token(self, caller: Caller) -> bool:
        return hmac.compare_digest((caller.token or "").encode(), self.token.encode())

    def _own_host(self, caller: Caller) -> bool:
        """Whether the Host is a name of loopback. Beyond loopback any address counts too, since a rebound name is not
        an address; and any name with the token or a key, which a rebound page does not have."""
        host = host_of(caller.host)
        if host is None:
            return False
        return is_loopback(host) or (
            self.beyond_loopback and (is_address(host) or self._shows_token(caller) or caller.key is not None)
        )

    def _foreign_page(self, caller: Caller) -> bool:
        """Whether the request comes from a foreign page. An Origin decides, if there is one: to a browser, localhost
        and 127.0.0.1 are two sites. Without one (a link, an image, a GET form) only `Sec-Fetch-Site` tells."""
        if caller.origin is None:
            return caller.fetch_site == "cross-site"
        parts = urlsplit(caller.origin)
        host = host_of(parts.netloc) if parts.scheme in ("http", "https") else None
        return host is None or not (is_loopback(host) or parts.netloc.lower() == caller.host.lower())
