"""Who may ask what: Host, Origin and token, decided purely.

A page in a browser can reach loopback: what stops it is that its Host (after DNS rebinding) or its Origin is foreign.
"""

from __future__ import annotations

import hmac
from typing import ClassVar
from urllib.parse import urlsplit

from msgspec import Struct

from node.gateway.http.addresses import host_of, is_address, is_loopback
from node.gateway.http.errors import ApiError
from protocol.discreet import Discreet


class Caller(Discreet, Struct, frozen=True):
    """What a request says of where it comes from."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("token",)
    host: str
    origin: str | None
    fetch_site: str | None
    """The header `Sec-Fetch-Site`, which browsers set and pages cannot."""
    token: str | None


class AccessRules(Discreet, Struct, frozen=True):
    """What one site of the gateway lets pass."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("token",)
    token: str
    local_socket: bool = False
    """The Unix socket: the file's mode has already decided, and no browser can open it."""
    beyond_loopback: bool = False

    def check(self, caller: Caller) -> None:
        """Raises ApiError 403 for a foreign Host or Origin, 401 where a token is needed and not shown."""
        self._check_source(caller, self._own_host(caller))
        if self.beyond_loopback:
            self.require_token(caller)

    def check_preflight(self, caller: Caller) -> None:
        """As `check`, of a browser that asks whether a page may ask: it never sends the token, which the request that
        follows must show. So beyond loopback a name passes here too: nothing but the permission to ask is told."""
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
                f"a page of {caller.origin or 'another site'} may not use this gateway: "
                "open it from a page on localhost, or call it from a program",
                "foreign_origin",
            )

    def require_token(self, caller: Caller) -> None:
        """For management and everything beyond loopback."""
        if self.local_socket:
            return
        if not self._shows_token(caller):
            raise ApiError(
                401,
                "this needs the token in the file gateway.token of the node's data directory: "
                "send it as `Authorization: Bearer TOKEN`, or ask over the Unix socket",
                "invalid_token",
            )

    def _shows_token(self, caller: Caller) -> bool:
        return hmac.compare_digest((caller.token or "").encode(), self.token.encode())

    def _own_host(self, caller: Caller) -> bool:
        """Loopback's names. Beyond it any address too, since a rebound name is not one; and any name with the token,
        which a page that was rebound does not have."""
        host = host_of(caller.host)
        if host is None:
            return False
        return is_loopback(host) or (self.beyond_loopback and (is_address(host) or self._shows_token(caller)))

    def _foreign_page(self, caller: Caller) -> bool:
        """The Origin decides where there is one: to a browser localhost and 127.0.0.1 are two sites. Without one
        (a link, an image, a form that gets) all that is known is whether it is another site."""
        if caller.origin is None:
            return caller.fetch_site == "cross-site"
        parts = urlsplit(caller.origin)
        host = host_of(parts.netloc) if parts.scheme in ("http", "https") else None
        return host is None or not (is_loopback(host) or parts.netloc.lower() == caller.host.lower())
