"""The link between two nodes: who is let in, hello, version, liveness.

door       who is let in before ZeroMQ reads a byte                  [6]
admission  who may enter: the swarm key and its proofs              [11]
hello      the first message, each way                               [5]
handshake  what may follow what on a link                            [6]
messages   the other messages of a link                              [5]
zmtp       whether a CURVE handshake succeeded, seen from outside     [6]
"""
