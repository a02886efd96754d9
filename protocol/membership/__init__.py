"""Who is in the swarm: signed records, gossip, failure detection.

member      membership of one node; its parts are listed there
messages    PING_REQ, GOSSIP, SYNC and their answers
records     what a node says of itself, signed
own_record  this node's own
peer_table  merge of what is held of each peer
key_set     peers to draw from
exchange    records and claims between two tables
gossip      news waiting to be pushed
sync        what two tables lack of each other
timers      deadlines by name
liveness    probing and suspicion together
probing     whose turn it is, and for whom
suspicion   how long a suspect has to speak up
health      this node's own trouble
core        state that the parts share
actions     what the caller is to do
config      intervals and limits
"""
