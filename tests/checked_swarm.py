"""A scripted session, and the checks that hold of it whatever its peers do."""

from collections import Counter, defaultdict

import numpy as np
from made_parts import make_unit
from scripted_peer import (
    SCRIPTS,
    ScriptedPeer,
    error,
    floods,
    garbage,
)
from scripted_session import IMPATIENT, Swarm

from node.execution.chunk import ChunkState
from node.execution.config import ExecutionConfig
from node.execution.manager import MAX_ATTEMPTS
from node.execution.peer import PeerStatus
from protocol.limits import ROW_BUCKETS
from protocol.linear.field import P
from protocol.linear.messages import Linear, Role
from protocol.message import ErrorCode

UNITS = [make_unit(20, 6), make_unit(530, 5, layer=1, kind="qkv")]
FOREVER = ExecutionConfig(progress_limit_s=1000, hedge_floor_s=1000)
FAILING = error(ErrorCode.INTERNAL)
AT_ONCE = ExecutionConfig(progress_limit_s=0, hedge_factor=0, hedge_floor_s=0, hedge_unmeasured_s=0)


def swarm_of(mode: str, lanes: list[list[str]], config: ExecutionConfig = IMPATIENT) -> Swarm:
    swarm = Swarm(UNITS, mode, config)
    for names in lanes:
        swarm.add_lane(*(SCRIPTS[name] for name in names[: 1 if mode == "strict" else 2]))
    return swarm


def shares_of(peer: ScriptedPeer) -> list[bytes]:
    return [request.rows.tobytes() for request in peer.linears if request.rows is not None]


def check_counts(swarm: Swarm) -> None:
    """What the ledger says is what the records of all chunks and the peers themselves say."""
    counts = swarm.manager.counts
    assert all(life[-1] is ChunkState.MERGED for life in swarm.lives.values())
    ended = Counter(swarm.ended)
    assert counts.merged == len(swarm.lives) == counts.verified + counts.local
    assert counts.verified == ended[ChunkState.VERIFIED]
    assert counts.hedged == ended[ChunkState.HEDGED]
    assert counts.local == ended[ChunkState.HEDGED] + ended[ChunkState.LOCAL]
    assert counts.sent == sum(ChunkState.SENT in life for life in swarm.lives.values())
    assert counts.rejected == sum(peer.session.rejected for peer in swarm.peers)
    assert counts.rejected == sum(peer.session.status is PeerStatus.BANNED for peer in swarm.peers)
    for peer in swarm.peers:
        assert peer.session.chunks == peer.requests
        assert peer.channel.bytes_up == sum(len(frame) for frames in peer.channel.sent for frame in frames)


def check_bans(swarm: Swarm) -> None:
    """Who lied is banned (the channel asserts that it is never asked again); who did not is not."""
    for peer in swarm.peers:
        if peer.lied and peer.script is not floods:
            assert peer.session.status is PeerStatus.BANNED
            assert peer.channel.closed
        elif peer.script is not garbage and not peer.lied:
            assert peer.session.status is not PeerStatus.BANNED


def check_retries(swarm: Swarm) -> None:
    """A share goes out twice at most, word for word, and in split mode never beyond its lane."""
    holders: dict[bytes, list[ScriptedPeer]] = defaultdict(list)
    for peer in swarm.peers:
        for share in shares_of(peer):
            holders[share].append(peer)
    for peers in holders.values():
        assert len(peers) <= MAX_ATTEMPTS
        if swarm.mode == "split":
            assert len(set(map(id, peers))) == 1
    assert len(holders) == swarm.manager.counts.sent


def check_privacy(swarm: Swarm) -> None:
    """By schema, by role and by content: seeds to one side, noise to the other, and no pad twice."""
    pads = [pad for pad in swarm.kernels.pads if len(pad) > 0]
    assert len(set(pads)) == len(pads)
    plain = [rows.tobytes() for rows in swarm.kernels.rows if rows.any()]
    in_field = [(rows.astype(np.int64) % P).astype("<u4").tobytes() for rows in swarm.kernels.rows if rows.any()]
    seeds_sent: list[bytes] = []
    for peer in swarm.peers:
        for request in peer.linears:
            assert request.binding.row_start == 0
            assert request.binding.num_rows in ROW_BUCKETS
            if peer.session.role is Role.PAD:
                assert request.rows is None and request.seed is not None
                assert request.binding.role is Role.PAD
                seeds_sent.append(request.seed)
            else:
                assert request.seed is None and request.rows is not None
                assert request.binding.role is Role.SHARE
        everything = b"".join(b"".join(frames) for frames in peer.channel.sent)
        for secret in [b"M" * 32, *plain, *in_field, *swarm.kernels.pads]:
            if len(secret) >= 8:
                assert secret not in everything
        if peer.session.role is Role.SHARE:
            assert not [seed for seed in swarm.seeds.made if seed in everything]
        kinds = {type(received.message).__name__ for received in peer.heard}
        assert kinds <= {"Linear", "Cancel"}
        ids = [received.id for received in peer.heard if isinstance(received.message, Linear)]
        assert ids == sorted(set(ids))
        assert all(
            received.message.binding.nonce == received.id
            for received in peer.heard
            if isinstance(received.message, Linear)
        )
    assert len(set(seeds_sent)) == len(seeds_sent)
    assert swarm.mode == "split" or not seeds_sent


def check(swarm: Swarm) -> None:
    check_counts(swarm)
    check_bans(swarm)
    check_retries(swarm)
    check_privacy(swarm)
    assert max(swarm.manager.waits, default=0) <= swarm.manager.config.progress_limit_s
