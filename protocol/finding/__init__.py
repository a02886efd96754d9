"""How nodes find each other, and whether others can dial them.

announcement  the mDNS entry
invitation    where a swarm is found and its key, as one line to copy
dialback      asking a peer to dial back
reachability  which addresses others can dial
"""
