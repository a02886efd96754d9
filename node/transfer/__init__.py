"""Weights from peers. What travels, and who is believed, is `protocol.transfer_*`; here are disks, threads, sockets.

librarian   reads pieces and makes outlines for others, apart from the data plane's thread
service     the part of the data plane that answers questions for blobs
sources     connections to the peers that blobs are fetched from
disk        what was fetched, on disk: pieces on their way, blobs that are whole
download    one fetch: sources, disk and state machine, in a thread of its own
choice      which layers a node takes, decided purely
jobs        what is being fetched, as others see it
seeding     a node that takes layers of a model and serves them as they come
"""
