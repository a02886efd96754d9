"""The swarm as this node lives in it.

credentials  key, first addresses and trusted model ids of the swarm, and the files they are in
inviting     what goes into an invitation
joining      what comes out of one
access       who is kept out, and who alone is let in, until when
memory       what of membership outlives a restart: the sequence number and the last records
member       drives `protocol.membership.member` from the control plane's loop
mesh         whom to dial next, so that every two members have a link
mesh_keeper  dials them
"""
