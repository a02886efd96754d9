"""The swarm as this node lives in it.

credentials   key, first addresses and trusted model ids of the swarm, and the files they are in
access        who is kept out, and who alone is let in, until when
memory        what of membership outlives a restart: the sequence number and the last records
member        drives `protocol.membership.member` from the control plane's loop
mesh          whom to dial next, so that every two members have a link
status        what is known of each peer, put together for people and interfaces
"""
