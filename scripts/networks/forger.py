"""A member that holds the swarm's key and lies about another: it gossips records that their owner never signed.

    python -m scripts.networks.forger DATA_DIR SWARM_KEY_HEX ADDRESS_OF_ITS_VICTIM'S_NEIGHBOUR PEERID_OF_THE_VICTIM

It links with the neighbour as any node, waits until it has the victim's record, sends the forgeries, says on stdout
how many, and stays until its stdin ends. The neighbour must keep the true record.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from msgspec.structs import replace

from node.config import NodeConfig
from node.node import Node
from node.paths import DataDir
from protocol.identity import Identity, PeerId
from protocol.link.admission import SwarmKey
from protocol.membership.messages import Gossip
from protocol.membership.records import PeerRecord, sign_record
from protocol.multiaddr import parse_multiaddr

WAIT_S = 30.0
ROUNDS = 3
"""Once may be a broken node; after ten such messages in a minute it is kept out."""
LURE = "/ip4/10.88.99.99/tcp/4711"
"""Where the forged records lead."""


def forgeries(victim: PeerRecord, own: Identity) -> list[bytes]:
    """Records that name the victim, or its place in the table, and are not its own."""
    facts = replace(victim.facts, addrs=(LURE,))
    mine = sign_record(own, facts, victim.seq + 1000).envelope
    flipped = victim.envelope[:-1] + bytes([victim.envelope[-1] ^ 1])
    # The victim's key in front of what the forger signed, and the forger's key in front of what the victim signed.
    in_its_name = mine.replace(own.public_key, victim.public_key)
    of_its_words = victim.envelope.replace(victim.public_key, own.public_key)
    address = victim.facts.addrs[0].encode()
    moved = victim.envelope.replace(address, address[:-1] + bytes([address[-1] ^ 1]))
    return [flipped, in_its_name, of_its_words, moved]


def main(folder: Path, key: str, neighbour: str, victim: str) -> None:
    identity = DataDir.open(folder).identity()
    address = parse_multiaddr(neighbour)
    assert address.peer_id is not None, "the neighbour's address carries its PeerID"
    config = NodeConfig(identity, None, (address,), threads=1, swarm_key=SwarmKey.from_hex(key), state=folder)
    with Node(config, []) as node:
        assert node.member is not None, "it has a folder for its state"
        deadline = time.monotonic() + WAIT_S
        while (entry := node.member.peer(PeerId(victim))) is None:
            if time.monotonic() > deadline:
                sys.exit("the victim's record never came")
            time.sleep(0.05)
        forged = forgeries(entry.record, identity)
        print(len(forged), flush=True)
        for envelope in forged * ROUNDS:
            node.control.send(address.peer_id, Gossip((envelope,)))
            time.sleep(0.1)
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:5])
