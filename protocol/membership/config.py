"""Tunables of membership. None of them is part of the protocol: nodes with different ones understand each other."""

from __future__ import annotations

from msgspec import Struct


class MembershipConfig(Struct, frozen=True):
    """Defaults are memberlist's for a LAN, unless a reason is given."""

    probe_interval_s: float = 1.0
    """One peer is probed each interval, times 1 + local health. Shorter finds crashes sooner and costs messages."""
    probe_timeout_s: float = 0.5
    """Wait for the answer to a direct probe, then as long again for the indirect ones; times 1 + local health."""
    indirect_probes: int = 3
    max_health: int = 8
    """Upper limit of local health: timeouts are multiplied by at most 1 + this."""
    lag_limit_s: float = 0.25
    """A tick that comes later than this counts as the node's own trouble, and its deadlines wait."""
    lag_grace_s: float = 0.5
    """After such a pause: time to read what has arrived meanwhile, before any deadline counts."""

    suspicion_multiplier: float = 4.0
    """Least time of a suspicion = this * max(1, log10 N) * probe_interval_s."""
    suspicion_max_factor: float = 6.0
    """Most time, while nobody confirms it = least time * this."""
    suspicion_confirmations: int = 3
    """So many further accusers shorten it to the least time."""
    fresh_s: float = 1.0
    """A peer that was heard within this time is probed, not suspected, when others accuse it."""

    gossip_interval_s: float = 0.2
    gossip_gap_s: float = 0.1
    """Least pause between pushes where records come in a burst; the first goes at once. Claims wait for a round."""
    gossip_fanout: int = 3
    gossip_multiplier: int = 6
    """A piece of news is sent this * ceil(log10(N + 1)) times by each node. With memberlist's 4 a push misses one of
    50 nodes in 4 % of all changes at 10 % loss (of 32 in 1 % without loss) and leaves it to anti-entropy; with 6 in
    0.1 %."""
    leave_fanout: int = 16
    """Peers that hear a farewell at once; the leaving node does not stay to repeat it."""

    sync_interval_s: float = 10.0
    sync_soon_s: float = 1.0
    """Time until the next exchange where this node knows nobody yet, or where the last one left much to fetch."""
    digest_pause_s: float = 0.5
    """A peer gets at most one digest in this time."""
    refute_pause_s: float = 0.5
    """Least time between two refutations."""

    max_peers: int = 2048
    """Most live peers in the table."""
    max_tombstones: int = 4096
    tombstone_s: float = 24 * 3600.0
    new_records_per_minute: int = 512
    """Most unknown peers that one sender may introduce in a minute, not counting itself."""
    sweep_s: float = 60.0
