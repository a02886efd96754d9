"""Weights from peers. `protocol.transfer` has the protocol; this package has its disks, threads and sockets.

sources         connections to the peers that blobs are fetched from
disk            fetched data on disk: pieces of incomplete blobs, and complete blobs
download        one fetch: sources, disk and state machine, in its own thread
choice          decides which layers a node takes; no I/O
coverage        decides who takes over a layer that too few nodes hold, and when a node may drop one; no I/O
budget          --memory: one bound for all weights that a node keeps
keeper          keeps the layers that a node lends where the swarm needs them
published       which models of this device the swarm is asked to hold
replicas        decides which models of others a node holds a part of; no I/O
replicator      remembers what others published, and asks `replicas`
holders         which peer holds what of a model, as peers announce it
announced       what peers announce in their records, after their hello
model_download  fetches a model from peers: its manifest, then layers or all of it, which are served as they come
surroundings    what a transfer needs from the node
borrowed        units that must be computed here for a while
jobs            running and ended transfers, as interfaces show them
transfers       all jobs of a node, each in its own thread
"""
