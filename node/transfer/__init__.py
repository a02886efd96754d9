"""Weights from peers. What travels, and who is believed, is `protocol.transfer`; here are disks, threads, sockets.

sources         connections to the peers that blobs are fetched from
disk            what was fetched, on disk: pieces on their way, blobs that are whole
download        one fetch: sources, disk and state machine, in a thread of its own
choice          which layers a node takes, decided purely
coverage        who takes over a layer that too few nodes hold, and when a node may drop one, decided purely
budget          --memory: one bound for all weights that a node keeps
keeper          keeps the layers that a node lends where the swarm needs them
holders         who holds what of a model, by what peers announce
announced       what peers announce after their hello, from their records
model_download  a model that comes from peers: its manifest, then layers or all of it, served as they come
surroundings    what a transfer needs of the node
borrowed        units that must be computed here for a while
jobs            what is being fetched, as interfaces show it
transfers       all jobs of a node, each in a thread of its own
"""
