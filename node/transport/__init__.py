"""ZeroMQ as Kekahyde uses it. Two planes, both CURVE-encrypted and ZAP-authenticated:

sockets     options, keys and the ZAP handler: the one place where sockets are made
registry    who is connected, shared between threads
control     asyncio in its own thread, in which the small frames of all links are handled
listener    links that others open
dialler     a link that this node opens
link        what both share
data        one blocking thread: requests in, results out, for the worker of this node
channel     a session's own connection to a peer's data plane, used by the generation loop directly
"""
