"""Start a node and run it until a signal stops it."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import click
from msgspec import Struct
from msgspec.structs import replace

from node.cli.narrate import always_tell, hint, say
from node.cli.stop_signal import StopSignal, stop_when_stdin_ends
from node.cli.thin import library_of
from node.cli.wanted import lendable_bytes, wanted_models
from node.config import NodeConfig
from node.errors import ConfigError, NodeFailedError
from node.gateway.config import GatewayConfig
from node.gateway.http.addresses import is_loopback
from node.node import Node
from node.paths import DataDir
from node.planning.placement import Lend, kinds_not_kept
from node.process.memory import share_one_arena
from node.serving.lending import Lending
from node.session.config import SessionConfig
from node.swarm.access import AccessList
from node.swarm.credentials import Swarm, finish_storing, load_swarm
from node.swarm.device_names import DeviceNames, check_name, host_name
from node.transfer.borrowed import remove_left_behind
from node.transfer.budget import MemoryBudget
from node.transfer.published import PublishedModels
from node.trust import PairedDevices
from protocol.identity import PeerId
from protocol.multiaddr import Multiaddr


class Endpoint(Struct, frozen=True):
    """What the options say about the gateway."""

    address: tuple[str, int] | None
    tcp: bool

    def config(self, data_dir: Path) -> GatewayConfig:
        host, port = self.address or ("127.0.0.1", None)
        return GatewayConfig(data_dir, host, port, self.tcp)


class SwarmChoice(Struct, frozen=True):
    """What the options say about the swarm."""

    key_file: Path | None
    is_open: bool
    announced: tuple[Multiaddr, ...] = ()
    on_lan: bool = True

    def load(self, directory: DataDir) -> Swarm:
        """The swarm of this start. Raises ConfigError."""
        return load_swarm(directory.path, os.environ, self.key_file, self.is_open)


class ServeOptions(Struct, frozen=True):
    """What the options say about a node that serves."""

    data_dir: Path
    listen: Multiaddr | None
    bootstrap: tuple[Multiaddr, ...]
    swarm: SwarmChoice
    endpoint: Endpoint
    model: str
    lend: Lend
    thin: bool
    memory_bytes: int | None
    threads: int | None
    name: str | None
    """None: as `own_name` says."""
    sends_all_rows: bool
    recheck: float
    draft: str | None
    as_json: bool

    def config(self, directory: DataDir, swarm: Swarm, listen: Multiaddr | None) -> NodeConfig:
        """The configuration of one start."""
        identity, names = directory.identity(), DeviceNames(directory.names)
        return NodeConfig(
            identity,
            listen,
            tuple(dict.fromkeys([*self.bootstrap, *swarm.bootstrap])),
            self.threads,
            models_dir=directory.models,
            swarm_key=swarm.key,
            state=directory.path,
            access=AccessList(directory.path / "access.json", time.time),
            announced=self.swarm.announced,
            on_lan=self.swarm.on_lan,
            paired=PairedDevices(identity, directory.path),
            guards_path=directory.guards,
            measures_path=directory.measures,
            name=own_name(self.name, names.of(identity.peer_id), swarm),
            names=names,
            lending=Lending(directory.lending),
            published=PublishedModels(directory.published),
            replicas_path=directory.replicas,
            replicates=self.memory_bytes is not None or not self.thin,
            named=named_guards(self.bootstrap),
            sends_all_rows=self.sends_all_rows,
            memory_bytes=lendable_bytes() if self.memory_bytes is None else self.memory_bytes,
        )


def serve(options: ServeOptions, until_stdin_ends: bool) -> None:
    """Run a node in the foreground; returns after a signal to stop."""
    share_one_arena()
    directory = DataDir.open(options.data_dir)
    lock = directory.lock()
    if lock is None:
        raise ConfigError(
            f"another node, or a `run` that has not ended, uses {options.data_dir}: stop it, or start this one with "
            f"its own --data-dir; `{hint(options.data_dir, 'tui')}` shows a node that runs"
        )
    # A node logs each change of its links; `run` prints these changes itself.
    always_tell("node.transport.dialler")
    stopping = StopSignal()
    if until_stdin_ends:
        stop_when_stdin_ends()
    with lock:
        directory.remove_left_behind()
        finish_storing(directory.path)
        start = Start(options.listen)
        while start.wanted:
            start = _serve_once(options, directory, stopping, start)


class Start(Struct, frozen=True):
    """One start of the node in this process."""

    listen: Multiaddr | None
    wanted: bool = True


def _serve_once(options: ServeOptions, directory: DataDir, stopping: StopSignal, start: Start) -> Start:
    """Run the node until it is to stop or to start again; returns the next start, at the same address."""
    from node.engine import Engine
    from node.gateway.server import Gateway  # aiohttp: commands that need no server start without it

    swarm = options.swarm.load(directory)
    config = options.config(directory, swarm, start.listen)
    lent = kinds_not_kept(options.thin, options.lend)
    library = library_of(directory, lent)
    remove_left_behind(directory.models)
    draft = None if options.draft is None else library.resolve(options.draft).model_id
    assert config.published is not None
    wanted = wanted_models(library, options.model, swarm, config.published.ids(swarm.key is None))
    sessions = SessionConfig(
        named=config.named,
        by_guards=not config.named,
        lend=options.lend,
        recheck=options.recheck,
        pads_ahead=True,
    )
    again = threading.Event()

    def start_again() -> None:
        again.set()
        stopping.give()

    with (
        Node(config, wanted.whole) as node,
        Engine(node, library, sessions, wanted.default, draft) as engine,
        Gateway(node, engine, options.endpoint.config(directory.path)) as gateway,
    ):
        node.on_failure = lambda reason: stopping.give()
        node.on_restart = start_again
        if node.failure is not None:
            stopping.give()
        for model_id in wanted.absent:
            if options.memory_bytes is not None or not lent:  # a thin client serves others if it is told how much
                node.keeper.lend(model_id, MemoryBudget(config.memory_bytes // len(wanted.absent), lent))
            if lent:
                node.transfers.pull(model_id, lent, patience_s=None)
        _announce(node, gateway.url, options)
        stopping.wait()
        if node.failure is not None:
            raise NodeFailedError(f"{node.failure}; start it again")
        bound = node.address
        say("starting again" if again.is_set() else "stopping")
    listen = start.listen if start.listen is None or bound is None else replace(start.listen, port=bound.port)
    return Start(listen, again.is_set())


def own_name(given: str | None, stored: str, swarm: Swarm) -> str:
    """The name that peers are told: that of this start's option, else the stored one, else the host's. An open swarm
    is full of strangers, who need not know the host's."""
    if given is not None:
        return check_name(given) if given.strip() else ""
    return stored or ("" if swarm.key is None else host_name())


def _announce(node: Node, gateway: str | None, options: ServeOptions) -> None:
    addresses = [str(address) for address in node.addresses]
    if options.as_json:
        ready = {"type": "ready", "peer_id": node.peer_id, "addrs": addresses, "gateway": gateway}
        click.echo(json.dumps(ready))
        return
    for line in addresses or [node.peer_id]:
        click.echo(line)
    called = f"{node.name}, " if node.name else ""
    say(f"node {called}{node.peer_id} is ready, kernels {node.kernels.name} on {node.kernels.threads} threads")
    if node.kernels.note:
        say(f"note: {node.kernels.note}")
    say(f"swarm {node.swarm_name}")
    if gateway is not None:
        say(f"programs reach it at {gateway}/v1 (OpenAI's protocol)")
        if not is_loopback(urlsplit(gateway).hostname or ""):
            say(
                "the gateway listens beyond this device: requests need the token in gateway.token, without encryption"
            )
    if addresses:
        invite = hint(options.data_dir, "invite")
        say(f"`{invite}` prints the line with which another device joins; Ctrl-C stops this node")
    else:
        say("nobody can dial in: it serves the peers that it dials itself; Ctrl-C stops it")


def named_guards(bootstrap: tuple[Multiaddr, ...]) -> tuple[PeerId, ...]:
    """Peers whose places in lanes the user chose, two or more; a single address is only an entry into the swarm."""
    named = tuple(dict.fromkeys(address.peer_id for address in bootstrap if address.peer_id))
    return named if len(named) > 1 else ()
