"""Joins all parts of a node. `run`, the harness and every interface use only this."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from msgspec.structs import replace

from node.config import NodeConfig
from node.conversations import Conversations
from node.errors import ConfigError
from node.execution.gate import UnitChecks
from node.execution.pads.pool import PadPools
from node.execution.tally import Tally
from node.guards import GuardKeeper
from node.guards.watch import GuardWatch
from node.kernels import has_same_floats, select_kernels
from node.kernels.interface import Kernels
from node.kernels.speed import field_macs_per_s
from node.planning.planner import Planner
from node.planning.watch import MeasuresWatch
from node.process.allowance import available_memory
from node.process.descriptors import raise_descriptor_limit
from node.process.endurance import GivenUpError
from node.serving.data_plane import DataPlane
from node.serving.hosting import HostedModels
from node.serving.lending import Lending
from node.serving.lending_watch import LendingWatch
from node.serving.spans import LEAST_BYTES, SpanCaches
from node.serving.worker import LinearWorker
from node.store.stored import StoredModel
from node.swarm.access import AccessList, Verdict
from node.swarm.device_names import DeviceNames
from node.swarm.member import Member
from node.swarm.memory import SwarmMemory
from node.swarm.mesh_keeper import MeshKeeper
from node.transfer.announced import Announcements
from node.transfer.keeper import LayerKeeper
from node.transfer.published import PublishedModels
from node.transfer.replicator import Replicator
from node.transfer.transfers import Transfers
from node.transport.control import ControlPlane
from node.transport.link import new_nonce
from node.transport.registry import PeerRegistry
from node.transport.sockets import SecureContext
from node.trust import PairedDevices, TrustDesk
from node.version import VERSION
from protocol.identity import PeerId
from protocol.limits import MAX_ADDRESSES, PROTOCOL_VERSION
from protocol.link.hello import Hello, WorkKind
from protocol.membership.actions import Changed, Forgotten
from protocol.membership.records import MAX_PUBLISHED_NAME_CHARACTERS, Capabilities, PeerFacts, PublishedModel
from protocol.multiaddr import Multiaddr

if TYPE_CHECKING:
    from node.discovery.discovery import Discovery

log = logging.getLogger(__name__)

# A blocked data thread gets the interpreter back from a busy one after this time (default 5 ms): a token needs many
# round trips of a quarter of a millisecond.
SWITCH_INTERVAL_S = 0.0005
AGENT = f"kekahyde/{VERSION}"
FAULT_BAN_S = 3600.0
"""How long a peer is banned that broke the rules of membership again and again."""
OPEN_SWARM = "open"
WILDCARDS = ("0.0.0.0", "::")
"""Hosts that mean every interface."""


class Node:
    """Identity, kernels, both planes and the worker, started and stopped together (a context manager)."""

    def __init__(self, config: NodeConfig, models: Sequence[StoredModel], kernels: Kernels | None = None) -> None:
        raise_descriptor_limit()  # before libzmq starts a thread
        self.config = config
        self.kernels = kernels if kernels is not None else select_kernels(config.threads)
        self.hosted = HostedModels(models)
        self.hosted.on_change = self._holdings_changed
        self.registry = PeerRegistry()
        self.planner = Planner(self.kernels, self.registry.measures, config.measures_path)
        self._checks: dict[bytes, UnitChecks] = {}
        self.pads = PadPools(lambda: select_kernels(1), lambda: (config.memory_bytes or available_memory()) // 8)
        self.pads.has_peers, self.registry.on_link_end = lambda: bool(self.registry.peers()), self.pads.clear
        self.access = config.access or AccessList(None, time.time)
        self.names = config.names or DeviceNames()
        self.name = config.name
        """This device's name, which peers are told; empty if it has none."""
        self.secure = SecureContext(config.identity, self.access.is_banned, config.swarm_key)
        self.worker = self.make_worker()
        devices = config.paired or PairedDevices(config.identity)
        self.lending = config.lending or Lending()
        is_paired = devices.__contains__
        self.data = DataPlane(
            self.secure,
            self.registry,
            self.worker,
            self.hosted.find_blob,
            is_paired,
            self._keep_out_for_a_while,
            self.lending,
        )
        self.control = ControlPlane(
            self.secure,
            self.registry,
            self.hello,
            lambda: self.data.queued,
            self._peer_up,
            config.swarm_key,
            self.access.refusal,
            self._keep_out_for_a_while,
        )
        self.on_failure: Callable[[str], None] = lambda reason: None
        """Called, from any thread, when an essential part of this node has ended."""
        self.on_restart: Callable[[], None] | None = None
        """Called, from any thread, when the node is to start again, with the settings that the disk has then; None:
        what runs this node cannot do that."""
        self.failure: str | None = None
        """The reason of the first such call."""
        self.control.on_end = lambda exc: self.part_ended("the control plane", exc)
        self.secure.gate.on_end = lambda exc: self.part_ended("the gate", exc)
        self.data.on_end = lambda exc: self.part_ended("the data plane", exc)
        self._announcements = Announcements(self.registry, self.hosted)
        self.transfers = Transfers(
            self.secure,
            self.registry,
            self.hosted,
            self.kernels,
            config.models_dir,
            self.ban,
            lambda: self.worker.spans is not None and bool(devices.peer_ids),
        )
        self.keeper = LayerKeeper(self.transfers, self.registry, self.hosted, lambda: self.trust.devices.operator)
        self.published = config.published or PublishedModels()
        self.replicator = Replicator(
            config.replicas_path, self.hosted, self.registry, self.lending, lambda: self.replicates
        )
        self.transfers.on_imported = self._imported
        self.trust = TrustDesk(config.identity, devices, self.registry, self.announce)
        self.control.add(self.trust)
        self.guards = GuardKeeper(
            config.guards_path,
            time.time,
            lambda peer_id: peer_id == self.peer_id or self.access.refusal(peer_id) is not None,
        )
        self.control.add(GuardWatch(self.guards, self.registry))
        self.control.add(MeasuresWatch(self.planner))
        self.control.add(LendingWatch(self.lending, self.worker.spans, self.announce))
        self.started_at = time.time()
        self.conversations = Conversations()
        self.tally = Tally()
        self.discovery = None if config.state is None else self._discovery()
        self.member = None if config.state is None else self._join(config.state)
        self._data_port = self._macs_per_s = 0

    def make_worker(self) -> LinearWorker:
        """The worker that answers others."""
        return LinearWorker(self.kernels, self.hosted.weights_of, self.hosted.row_norm_of, self.make_spans())

    def make_spans(self) -> SpanCaches | None:
        """What computes runs of layers for devices of the same owner; None if its floats are not those of others."""
        if not has_same_floats(self.kernels):
            return None
        return SpanCaches(self.kernels, self.hosted.layered, self._span_bytes)

    def _span_bytes(self) -> int:
        """Memory for the KV caches of others' texts."""
        return max((self.config.memory_bytes or available_memory()) // 4, LEAST_BYTES)

    @property
    def addresses(self) -> list[Multiaddr]:
        """The addresses of this node to announce, up to the limit, the most useful first."""
        return self.every_address[:MAX_ADDRESSES]

    @property
    def every_address(self) -> list[Multiaddr]:
        """Its address, or one for every interface if it listens on all."""
        if self.address is None:
            return []
        if self.address.host not in WILDCARDS:
            return [self.address]
        from node.discovery.interfaces import own_hosts  # psutil: needed only to listen on all interfaces

        return [replace(self.address, host=host) for host in own_hosts(self.address.protocol)]

    @property
    def macs_per_s(self) -> int:
        """Its speed with field elements, measured at its start; 0 if it is alone."""
        return self._macs_per_s

    @property
    def address(self) -> Multiaddr | None:
        """The bound address; None if nobody can dial in."""
        return self.control.address

    @property
    def peer_id(self) -> PeerId:
        return self.config.identity.peer_id

    @property
    def is_open(self) -> bool:
        """Whether anybody may enter its swarm."""
        return self.config.swarm_key is None

    @property
    def swarm_name(self) -> str:
        """The swarm's name for people."""
        return OPEN_SWARM if self.config.swarm_key is None else self.config.swarm_key.name

    @property
    def replicates(self) -> bool:
        """Whether it holds parts of models that others publish: as the owner says, else in a swarm with a key only,
        because strangers could fill the disk."""
        said = self.lending.rules.replicate
        return self.config.replicates and (not self.is_open if said is None else said)

    def model_name(self, model_id: bytes) -> str:
        """What a model is called: here, else by the member that published it; empty if it has no name."""
        here = next((model.name for model in self.hosted.models if model.model_id_bytes == model_id), "")
        return here or self.replicator.names().get(model_id, ("", ""))[0]

    def name_of(self, peer_id: PeerId) -> str:
        """What a peer is called: the name that the user gave it, else the one that the connected peer says, with the
        end of its PeerID if another device says the same; empty if it has none."""
        given, peer = self.names.of(peer_id), self.registry.peer(peer_id)
        if given or peer is None or not peer.hello.name:
            return given
        said = peer.hello.name
        others = {other.hello.name for other in self.registry.peers() if other is not peer}
        taken = others | {self.name, *self.names.all().values()}
        return f"{said} …{peer_id[-6:]}" if said.casefold() in {name.casefold() for name in taken} else said

    def ban(self, peer_id: PeerId, reason: str, duration_s: float | None = None) -> None:
        """Ban a peer for `duration_s` seconds or for ever, and end its links."""
        try:
            self.access.put(peer_id, Verdict.BAN, duration_s, reason)
        except ConfigError as exc:  # a full disk or a full list must end neither the answer nor the control plane
            log.error("the ban of %s could not be stored: %s", peer_id, exc)
        self.expel(peer_id, f"not wanted here ({self.access.refusal(peer_id) or reason})")

    def expel(self, peer_id: PeerId, reason: str) -> None:
        """End all links with a peer that is not wanted any more; sessions notice it before their next pass."""
        self.registry.expel(peer_id)
        self.control.drop(peer_id, reason)

    def part_ended(self, part: str, exc: BaseException) -> None:
        """An essential part has ended unexpectedly: peers get no new work from here, answers continue on this
        device."""
        for peer in self.registry.peers():
            self.registry.leave(peer.peer_id)
        cause = str(exc) if isinstance(exc, GivenUpError) else type(exc).__name__
        reason = f"{part} of this node has ended ({cause}): the log above says more"
        log.error("%s; from now on everything is computed only on this device", reason)
        self.failure = self.failure or reason
        self.on_failure(reason)

    def checks_of(self, model: StoredModel) -> UnitChecks:
        """The checks for a model's results, drawn once and shared by this node's sessions."""
        return self._checks.setdefault(model.model_id_bytes, UnitChecks(self.kernels, model.check_of))

    def announce(self) -> None:
        """Facts about this node have changed: tell the swarm."""
        if self.member is not None:
            self.member.announce()

    def __enter__(self) -> Self:
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        if not self.config.is_alone:
            self._macs_per_s = round(field_macs_per_s(self.kernels))
        self.secure.__enter__()
        try:
            self._data_port = self.data.start(self.config.listen)
            self.control.start(self.config.listen, self.config.bootstrap)
            if self.discovery is not None:
                self.discovery.start()
            if self.config.replicates and self.config.models_dir is not None:
                self.keeper.replicate(self.replicator, self.config.memory_bytes, self.config.models_dir)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self.pads.stop()
        self.keeper.stop()
        self.transfers.stop()
        if self.discovery is not None:
            self.discovery.stop()
        self.control.stop()
        self.guards.close()
        self.lending.close()
        if self.data.stop():
            self.secure.__exit__()
        self.planner.keep()

    def hello(self) -> Hello:
        """This node's hello, with its current facts."""
        return Hello(
            public_key=self.config.identity.public_key,
            versions=(PROTOCOL_VERSION,),
            agent=AGENT,
            addrs=tuple(str(address) for address in self.addresses),
            data_port=self._data_port,
            hosted=self.hosted.announced,
            macs_per_s=self._macs_per_s,
            work=self._work,
            nonce=new_nonce(),
            operator=self.trust.devices.operator,
            clock_ms=int(time.time() * 1000),
            name=self.name,
        )

    @property
    def _work(self) -> tuple[int, ...]:
        """The kinds of work that it does for others now."""
        if self.lending.refusal is not None:
            return ()
        return (WorkKind.LINEAR,) if self.worker.spans is None else (WorkKind.LINEAR, WorkKind.SPAN)

    def facts(self) -> PeerFacts:
        """The current facts for this node's record."""
        capabilities = Capabilities(
            work=self._work,
            macs_per_s=self._macs_per_s,
            memory_bytes=self.config.memory_bytes if (lent := self.keeper.lent_bytes) is None else lent,
            data_port=self._data_port,
            hosted=self.hosted.layers,
            operator=self.trust.devices.operator,
            leaving=self.hosted.leaving,
            published=self._published,
        )
        known = self.addresses if self.discovery is None else self.discovery.reach.addresses
        addresses = tuple(str(address.with_peer(self.peer_id)) for address in known)
        return PeerFacts(addresses, AGENT, (PROTOCOL_VERSION,), capabilities)

    @property
    def _published(self) -> tuple[PublishedModel, ...]:
        whole = {model.model_id: model for model in self.hosted.models}
        told = [whole[model_id] for model_id in self.published.ids(self.is_open) if model_id in whole]
        return tuple(
            PublishedModel(model.model_id_bytes, model.name[:MAX_PUBLISHED_NAME_CHARACTERS]) for model in told
        )

    def _join(self, state: Path) -> Member:
        """Become a member of the swarm, with a link to every other member."""
        member = Member(
            self.config.identity, self.facts, SwarmMemory(state), self.control.links, self._keep_out_for_a_while
        )
        if self.discovery is not None:
            self.control.add(self.discovery.reach)  # first: the record names its addresses
        member.watch(self._heard_of)
        self.control.add(member)
        self.control.add(MeshKeeper(self.peer_id, member, self.access.refusal))
        return member

    def _discovery(self) -> Discovery:
        from node.discovery.discovery import Discovery  # zeroconf: only members look for others
        from node.discovery.mdns import LanIdentity

        config = self.config
        key = None if config.swarm_key is None else config.swarm_key.secret
        me = LanIdentity(config.identity.public_key, key)
        return Discovery(
            me, lambda: self.addresses, config.announced, self.announce, self.control.dial_hint, config.on_lan
        )

    def _keep_out_for_a_while(self, peer_id: PeerId, reason: str) -> None:
        self.ban(peer_id, reason, FAULT_BAN_S)

    def _holdings_changed(self) -> None:
        """This node serves more layers, or a new manifest tells what others serve."""
        self.announce()
        if self.member is not None:
            self._announcements.heard(entry.record for entry in self.member.peers())

    def _imported(self, model: StoredModel) -> None:
        """A model of the hub is here: the swarm is asked to hold it."""
        self.published.add(model.model_id, by_hand=False)
        self.announce()

    def _heard_of(self, change: Changed | Forgotten) -> None:
        if isinstance(change, Changed):
            self._announcements.heard([change.record])

    def _peer_up(self, peer_id: PeerId) -> None:
        entry = None if self.member is None else self.member.peer(peer_id)
        if entry is not None:
            self._announcements.heard([entry.record])
        self._offer_service(peer_id)

    def _offer_service(self, peer_id: PeerId) -> None:
        """If nobody can dial this node, serve over a connection that it dials itself."""
        peer = next((peer for peer in self.registry.peers() if peer.peer_id == peer_id), None)
        if self._data_port == 0 and peer is not None and peer.data_endpoint is not None:
            self.data.offer(peer_id, peer.host, peer.hello.data_port)
