"""Who may ask what: Host, Origin and token, decided purely.

A page in a browser can reach loopback: what stops it is that its Host (after DNS rebinding) or its Origin is foreign.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from node.gateway.http.addresses import host_of, is_address, is_loopback
from node.gateway.http.errors import ApiError


@dataclass(frozen=True, slots=True)
class Caller:
    """What a request says of where it comes from."""

    host: str
    origin: str | None
    fetch_site: str | None
    """The header `Sec-Fetch-Site`, which browsers set and pages cannot."""
    token: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class AccessRules:
    """What one site of the gateway lets pass."""

    token: str = field(repr=False)
    local_socket: bool = False
    """The Unix socket: the file's mode has already decided, and no browser can open it."""
    beyond_loopback: bool = False

    def check(self, caller: Caller) -> None:
        """Raises ApiError 403 for a foreign Host or Origin, 401 where a token is needed and not shown."""
        if self.local_socket:
            return
        if not self._own_host(caller):
            raise ApiError(
                403,
                f"the Host {caller.host!r} is not this gateway's: use http://127.0.0.1 and its port",
                "foreign_host",
            )
        foreign = caller.origin is not None and not self._own_origin(caller)
        if foreign or caller.fetch_site == "cross-site":
            raise ApiError(
                403,
                f"a page of {caller.origin or 'another site'} may not use this gateway: "
                "open it from a page on localhost, or call it from a program",
                "foreign_origin",
            )
        if self.beyond_loopback:
            self.require_token(caller)

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

    def _own_origin(self, caller: Caller) -> bool:
        assert caller.origin is not None
        parts = urlsplit(caller.origin)
        if parts.scheme not in ("http", "https"):
            return False
        host = host_of(parts.netloc)
        return host is not None and (is_loopback(host) or parts.netloc.lower() == caller.host.lower())
