"""Management operations, which a user may call on a running node over its control socket or the gateway.

    arguments  arguments, checked
    named_peer which peer a user means, and `name`, which gives one a name
    peers      the known peers and their state
    access     the ban list and the allow list
    invite     a line that lets another device into the swarm
    join       enters another swarm with such a line, and `restart`, which starts the node again
    lending    what this node computes for others, and the owner's rules for it
    doctor     what is wrong with the node and its surroundings
    pairing    pair_start .. unpair: devices of the same owner
    conversations  what interfaces keep in the node's memory
    publish    publish, unpublish: which models of this device the swarm is asked to hold; pads: made ahead for them
    transfers  pull, pull_cancel: a model from peers or from the hub, and what is being fetched

Each is a function `(node, arguments) -> result` of plain JSON values that raises KekahydeError. It may block: the
gateway calls it in a worker thread. `OPERATIONS` is the complete table; the CLI, the gateway and the terminal
interface use only these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from node.node import Node
from node.operations.access import access, allow, ban, forget
from node.operations.conversations import conversation_drop, conversation_put, conversations
from node.operations.doctor import doctor
from node.operations.invite import invite
from node.operations.join import join, restart
from node.operations.lending import lending, lending_set
from node.operations.named_peer import name
from node.operations.pairing import pair_confirm, pair_consent, pair_list, pair_refuse, pair_start, unpair
from node.operations.peers import peers
from node.operations.publish import pads, publish, unpublish
from node.operations.transfers import pull, pull_cancel, transfers

Operation = Callable[[Node, Mapping[str, Any]], dict[str, Any]]

OPERATIONS: dict[str, Operation] = {
    "doctor": doctor,
    "invite": invite,
    "join": join,
    "restart": restart,
    "peers": peers,
    "name": name,
    "access": access,
    "ban": ban,
    "allow": allow,
    "forget": forget,
    "pair_start": pair_start,
    "pair_list": pair_list,
    "pair_confirm": pair_confirm,
    "pair_refuse": pair_refuse,
    "pair_consent": pair_consent,
    "unpair": unpair,
    "pads": pads,
    "publish": publish,
    "unpublish": unpublish,
    "pull": pull,
    "pull_cancel": pull_cancel,
    "transfers": transfers,
    "lending": lending,
    "lending_set": lending_set,
    "conversations": conversations,
    "conversation_put": conversation_put,
    "conversation_drop": conversation_drop,
}

READING: frozenset[str] = frozenset({"peers", "lending", "pair_list", "transfers"})
"""Operations that change nothing and reveal no secret: on loopback they need no token."""
