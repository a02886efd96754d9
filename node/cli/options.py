"""Options that several commands share. A wrong value is refused, and the error names the option."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from node.errors import AddressError
from node.model.draft import MAX_WINDOW
from node.paths import default_data_dir
from node.privacy import DEFAULT_RECHECK, MAX_PAD_OUTPUT
from protocol.multiaddr import Multiaddr, parse_multiaddr

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_LISTEN = "/ip4/127.0.0.1/tcp/0"
DEFAULT_MODEL = "story"
NO_MODEL = "none"
EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."


class AddressType(click.ParamType[Multiaddr | None]):
    """A multiaddr, or `none` where that is allowed."""

    name = "address"

    def __init__(self, needs_peer: bool = False, allows_none: bool = False, needs_port: bool = False) -> None:
        self._needs_peer = needs_peer
        self._needs_port = needs_port
        self._allows_none = allows_none

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Multiaddr | None:
        if isinstance(value, Multiaddr) or (self._allows_none and value == "none"):
            return value if isinstance(value, Multiaddr) else None
        try:
            address = parse_multiaddr(_as_multiaddr(str(value)))
        except AddressError as exc:
            self.fail(str(exc), param, ctx)
        if self._needs_peer and (address.peer_id is None or not address.port):
            self.fail(
                f"{value!r} lacks a port or /p2p/PEERID: give the whole address that the node printed", param, ctx
            )
        if self._needs_port and not address.port:
            self.fail(f"{value!r} has no port that others can dial", param, ctx)
        return address


def _as_multiaddr(value: str) -> str:
    """IP:PORT in the form of an address; anything else as it is."""
    host, _, port = value.rpartition(":")
    try:
        number = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return value
    return f"/ip{number.version}/{number}/tcp/{port}"


class MemoryType(click.ParamType[int]):
    """An amount of memory: bytes, or a number with KiB, MiB, GiB or TiB (the i and the B may be left out)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])i?B?|B)?", str(value).strip(), re.IGNORECASE)
        if match is None:
            self.fail(f"{value!r} is not an amount of memory: write it like 512MiB or 4GiB", param, ctx)
        return int(float(match[1]) * 1024 ** (" KMGT".index((match[2] or " ").upper())))


def _flagged(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def apply(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return apply


data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    default=default_data_dir,
    show_default="the platform's data directory",
    help="The folder with identity, models and settings.",
)


class SpeculateType(click.ParamType[int | None]):
    """`auto`, `off`, or a number of rows."""

    name = "speculate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if isinstance(value, int) or value == "auto":
            return None if value == "auto" else value
        if value == "off":
            return 0
        if not str(value).isdecimal() or int(value) not in range(2, MAX_WINDOW + 1):
            self.fail(f"{value!r} is not auto, off, or a number from 2 to {MAX_WINDOW}", param, ctx)
        return int(value)


json_option = click.option("--json", "as_json", is_flag=True, help="Print machine-readable lines on stdout.")
verbose_option = click.option("-v", "--verbose", count=True, help="Print more on stderr (-vv for everything).")
model_option = click.option(
    "--model",
    default=DEFAULT_MODEL,
    show_default=True,
    help="Name or id of an imported model, or a checkpoint folder.",
)
lend_option = click.option(
    "--lend",
    type=click.Choice(["auto", "ffn", "layers", "all"]),
    default="auto",
    show_default=True,
    help="What peers compute: ffn (feed-forward layers), layers (all layers), all (layers and head), or auto (the "
    "fastest).",
)
speculate_option = click.option(
    "--speculate",
    type=SpeculateType(),
    default=None,
    metavar="auto|off|N",
    help="Compute N rows in each pass, the newest token and guesses of the next ones: the text is the same, with "
    "fewer passes where guesses are right. [default: auto, where a pass with guesses takes hardly longer]",
)
draft_option = click.option(
    "--draft",
    default=None,
    metavar="NAME",
    help="A smaller model of the same vocabulary that is here and guesses tokens (see --speculate): the same text in "
    "fewer passes over peers.",
)
pad_output_option = click.option(
    "--pad-output",
    type=click.IntRange(0, MAX_PAD_OUTPUT),
    default=0,
    metavar="N",
    help="split and strict: after the end of the answer, compute more passes, up to a multiple of N, so that peers "
    "do not learn how long the answer is. [default: 0, none]",
)
recheck_option = click.option(
    "--recheck",
    type=click.FloatRange(0, 1),
    default=DEFAULT_RECHECK,
    show_default=True,
    help="The share of the results of your own devices (--privacy trusted) that is computed again in secret, here or "
    "by another of them; "
    "1: all, before they are used. The first rows of each text are always likely to be among them.",
)
publish_option = click.option(
    "--publish/--no-publish",
    default=True,
    show_default=True,
    help="Ask the members of your swarm to hold parts of it. An open swarm is asked by `models publish` alone.",
)
thin_option = click.option(
    "--thin", is_flag=True, help="Keep no weights of what peers compute (--lend), only small checks."
)
memory_option = click.option(
    "--memory",
    "memory_bytes",
    type=MemoryType(),
    default=None,
    show_default="half of the free memory",
    help="Memory for weights that you keep or serve, such as 4GiB.",
)
name_option = click.option(
    "--name",
    default=None,
    show_default="the name that `kekahyde-node name` gave it, else the host's; in an open swarm none",
    help="Name of this device, which peers see; empty: none.",
)
threads_option = click.option(
    "--threads", type=click.IntRange(1, 1024), default=None, show_default="all cores", help="Number of threads."
)

web_options = _flagged(
    click.option(
        "--web", is_flag=True, help="Serve the interface to a browser on this machine, and print its address."
    ),
    click.option(
        "--web-port", type=click.IntRange(1, 65535), default=None, show_default="any free one", help="Port of --web."
    ),
)
network_options = _flagged(
    click.option(
        "--listen",
        type=AddressType(allows_none=True),
        default=DEFAULT_LISTEN,
        show_default=True,
        help="Address to listen on. Port 0 takes any free port; with `none` the node only dials out.",
    ),
    click.option(
        "--bootstrap",
        type=AddressType(needs_peer=True),
        multiple=True,
        help="Address of a peer, as its node printed it. May be given several times.",
    ),
)


class EndpointType(click.ParamType[tuple[str, int]]):
    """HOST:PORT of the gateway; the host is an IP address or localhost."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, colon, port = str(value).rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        host = "127.0.0.1" if host in ("", "localhost") else host
        try:
            ipaddress.ip_address(host)
            number = int(port)
        except ValueError:
            number = -1
        if not colon or not 0 <= number <= 65535:
            self.fail(f"{value!r} is not HOST:PORT: write it like 127.0.0.1:11435", param, ctx)
        return host, number


gateway_options = _flagged(
    click.option(
        "--gateway",
        type=EndpointType(),
        default=None,
        show_default="127.0.0.1:11435; with another data directory a free port, which it keeps",
        help="Where programs reach the node by OpenAI's HTTP protocol and by WebSocket. Beyond loopback every "
        "request needs the token in DATA_DIR/gateway.token.",
    ),
    click.option("--no-gateway", is_flag=True, help="Open no HTTP port; commands of this user still reach the node."),
)

discovery_options = _flagged(
    click.option(
        "--announce",
        type=AddressType(needs_port=True),
        multiple=True,
        help="Address at which others reach this node, such as a forwarded port; it is announced without a test. "
        "May be given several times.",
    ),
    click.option("--no-mdns", is_flag=True, help="Do not use mDNS to find the swarm's nodes on the local network."),
)

swarm_options = _flagged(
    click.option(
        "--swarm-key",
        type=click.Path(path_type=Path, dir_okay=False),
        default=None,
        help="File with the swarm's key, 64 hex digits (or set the variable KEKAHYDE_SWARM_KEY). Default: the key in "
        "the data directory, from its first start or from `join`.",
    ),
    click.option(
        "--open", "is_open", is_flag=True, help="Use an open swarm: anybody may come in, and `strict` is the default."
    ),
)
