"""This node as a member of its swarm.

credentials  key, first addresses and trusted model ids of the swarm, and their files
inviting     writes invitations
joining      joins a swarm with an invitation
access       the ban list and the allow list
device_names names of devices: the host's own, and those that the user gave
memory       what membership keeps over a restart: the sequence number and the last records
member       runs `protocol.membership.member` in the control plane's loop
mesh         which peers to dial next, so that every two members have a link
mesh_keeper  dials these peers
"""
