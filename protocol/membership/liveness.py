"""Who is alive: SWIM's probes and suspicion with Lifeguard's refinements, as one state machine.

Hearsay can do no more than cast suspicion; only this node's own waiting declares a peer dead, and any frame of the
peer itself takes it back. A suspect convinces everybody else by a record of its own with a higher seq.
"""

from __future__ import annotations

from protocol.membership.core import MembershipCore
from protocol.membership.messages import Claim, Gossip, PingReq, PingResult, State
from protocol.membership.peer_table import Entry
from protocol.membership.probing import Help, Helping, Probe, Rotation
from protocol.membership.suspicion import Suspicion
from protocol.membership.timers import Timer
from protocol.message import Ping

NACK_SHARE = 0.8
"""A helper reports failure after this part of the probe's time, so that the report comes before the time is over."""


class Liveness:
    """Probes, answers to probes, and suspicions of one node."""

    def __init__(self, core: MembershipCore) -> None:
        self._core = core
        self._rotation = Rotation()
        self._helping = Helping()
        self._probes: dict[bytes, Probe] = {}
        self._suspicions: dict[bytes, Suspicion] = {}
        self._number = 0

    # --- what happens

    def learned(self, key: bytes) -> None:
        """A peer is new in the table."""
        self._rotation.add(key, self._core.rng)

    def renewed(self, key: bytes) -> None:
        """A newer record came: it refutes every suspicion of its owner."""
        self._suspicions.pop(key, None)
        self._core.timers.cancel(Timer.SUSPICION, key)

    def doubtful(self, key: bytes, now: float) -> None:
        """A link broke: probe this peer at once."""
        self._rotation.hurry(key)
        self._core.timers.set_earlier(Timer.PROBE, now)

    def heard(self, key: bytes, now: float) -> None:
        """A frame came from this peer itself."""
        core = self._core
        if self._probes.pop(key, None) is not None:
            core.timers.cancel(Timer.ANSWER, key)
            core.health.better()
        for waiting in self._helping.answered(key):
            core.send(waiting.requester, PingResult(key, waiting.number, True))
        entry = core.table.get(key)
        if entry is None:
            return
        entry.heard_at = now
        if entry.state in (State.SUSPECT, State.DEAD):
            core.send(key, Gossip(claims=(self._claim(key, entry),)))  # so that the peer refutes it for everybody
            self.renewed(key)
            core.set_doubt(key, entry, State.ALIVE, now)

    def claimed(self, claim: Claim, sender: bytes, now: float) -> None:
        """Somebody says that a peer other than this node is suspect or dead."""
        core, key = self._core, claim.subject
        entry = core.table.get(key)
        accuser = claim.accuser if core.table.get(claim.accuser) is not None else sender
        if entry is None or entry.record.seq != claim.seq or accuser in (core.me, key):
            return
        if entry.state in (State.DEAD, State.LEFT):
            return
        if entry.heard_at is not None and now - entry.heard_at < core.config.fresh_s:
            self._rotation.hurry(key)
            if claim.state is State.DEAD:
                core.send(key, Gossip(claims=(claim,)))
            return
        self._suspect(key, entry, accuser, claim.state, now)

    def asked(self, request: PingReq, sender: bytes, now: float) -> None:
        """Somebody asks this node to ping a peer."""
        core = self._core
        wait_s = NACK_SHARE * core.config.probe_timeout_s
        help_ = Help(sender, request.number, now + wait_s)
        if request.target == core.me or sender == request.target:
            return
        if not core.is_reachable(request.target) or not self._helping.add(request.target, help_):
            core.send(sender, PingResult(request.target, request.number, False))
            return
        core.send(request.target, Ping())
        core.timers.set_earlier(Timer.HELP, now + wait_s, request.target)

    def reported(self, result: PingResult, sender: bytes) -> None:
        """A helper answers."""
        probe = self._probes.get(result.target)
        if probe is None or probe.number != result.number or sender not in probe.helpers:
            return
        if result.reached:
            del self._probes[result.target]
            self._core.timers.cancel(Timer.ANSWER, result.target)
            self._core.health.better()
        elif sender not in probe.nacks:
            probe.nacks.add(sender)

    # --- deadlines

    def probe_due(self, now: float) -> None:
        """The next peer's turn."""
        core = self._core
        key = self._rotation.next(core.table.live, core.rng, lambda key: self._needs_probe(key, now))
        if key is not None and key not in self._probes and core.is_reachable(key):
            self._probe(key, now)
        core.timers.set(Timer.PROBE, now + core.config.probe_interval_s * core.health.factor)

    def answer_due(self, key: bytes, now: float) -> None:
        """A probe was not answered in time: ask others, then suspect."""
        core, probe = self._core, self._probes[key]
        if not probe.helpers:
            core.send(key, Ping())  # the first may be lost, and a link that was redialled since may carry this one
            probe.helpers.update(helpers := core.choose(core.config.indirect_probes, exclude=(key,)))
            for helper in helpers:
                core.send(helper, PingReq(key, probe.number))
            if helpers:
                core.timers.set(Timer.ANSWER, now + core.config.probe_timeout_s * core.health.factor, key)
                return
        del self._probes[key]
        core.health.worse(len(probe.helpers) - len(probe.nacks) if probe.helpers else 1)
        entry = core.table.get(key)
        if entry is not None and entry.state in (State.ALIVE, State.SUSPECT):
            self._suspect(key, entry, core.me, State.SUSPECT, now)

    def help_due(self, key: bytes, now: float) -> None:
        """A ping on behalf of others was not answered in time."""
        for waiting in self._helping.expired(key, now):
            self._core.send(waiting.requester, PingResult(key, waiting.number, False))
        following = self._helping.next_deadline(key)
        if following is not None:
            self._core.timers.set(Timer.HELP, following, key)

    def suspicion_due(self, key: bytes, now: float) -> None:
        """A suspect did not speak up in time."""
        core, suspicion, entry = self._core, self._suspicions.pop(key), self._core.table.get(key)
        if entry is None or entry.state is not State.SUSPECT:
            return
        core.set_doubt(key, entry, State.DEAD, now)
        if not suspicion.called_dead:
            core.publish(("claim", key, core.me), self._claim(key, entry), now)

    # --- deeds

    def _needs_probe(self, key: bytes, now: float) -> bool:
        if key == self._core.me or key in self._probes or not self._core.is_reachable(key):
            return False
        entry = self._core.table.get(key)
        assert entry is not None, "live peers are in the table"
        return entry.heard_at is None or now - entry.heard_at >= self._core.config.probe_interval_s

    def _probe(self, key: bytes, now: float) -> None:
        core, entry = self._core, self._core.table.get(key)
        self._number += 1
        self._probes[key] = Probe(self._number)
        core.send(key, Ping())
        if entry is not None and entry.state is State.SUSPECT:
            core.send(key, Gossip(claims=(self._claim(key, entry),)))
        core.timers.set(Timer.ANSWER, now + core.config.probe_timeout_s * core.health.factor, key)

    def _suspect(self, key: bytes, entry: Entry, accuser: bytes, state: State, now: float) -> None:
        core, suspicion = self._core, self._suspicions.get(key)
        if suspicion is None:
            suspicion = self._suspicions[key] = Suspicion(now, num_peers=len(core.table.live) - 2)
            core.set_doubt(key, entry, State.SUSPECT, now)
        if not suspicion.confirm(accuser, core.config):
            return
        suspicion.called_dead |= state is State.DEAD
        core.timers.set(Timer.SUSPICION, suspicion.deadline(core.config), key)
        core.publish(("claim", key, accuser), Claim(key, entry.record.seq, state, accuser), now)

    def _claim(self, key: bytes, entry: Entry) -> Claim:
        """What this node itself holds against a peer."""
        return Claim(key, entry.record.seq, entry.state, self._core.me)
