"""Parses host names and addresses in requests, without looking anything up."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def host_of(authority: str) -> str | None:
    """`host:port` without port and brackets, in lower case; None if it does not have that form."""
    try:
        parts = urlsplit(f"//{authority}")
        parts.port  # noqa: B018 - raises for an invalid port
    except ValueError:
        return None
    plain = parts.path == "" and parts.query == "" and parts.fragment == "" and parts.username is None
    return parts.hostname.rstrip(".") if plain and parts.hostname else None


def is_loopback(host: str) -> bool:
    """Whether a name or an address means only this device."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_address(host: str) -> bool:
    """Whether it is an IP address, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
