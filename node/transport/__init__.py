"""ZeroMQ as Kekahyde uses it. Two planes, both behind the gate, CURVE-encrypted and ZAP-authenticated:

gate           the TCP ports: strangers knock, members are let in
stranger       a connection of somebody who is not known yet
admissions     proofs that were given at the door, each good for one connection
callers        connections that stand, and which of them a frame came over
pump           passes bytes between a connection and its ROUTER (pump.c; portable_pump without a compiler)
build_pump     builds pump.c at install
knock          knocks at other nodes' doors
sockets        options, keys and the ZAP handler: the one place where sockets are made
registry       who is connected, shared between threads
control        asyncio in its own thread, in which the small frames of all links are handled
listener       links that others open
dialler        a link that this node opens
dials          dialling as tasks
link, links    what every link shares; every open link
names          host names become addresses
computing      which part of whose request is computed next, and in which thread (bulk)
conduct        how much of a thread's time messages of one peer may take, and which rules it broke
inbox          messages of peers that ask faster than they are served, unopened
reception      what is done with a message of a peer: an answer at once, or a request that waits for its turn
breaks         when a thread that is asked for too much only listens
commands       what other threads want of the data plane's
data           one blocking thread: requests in, results out, for the worker of this node
outbox         what it sends
lent           connections of the data plane that it did not accept itself
line           a data connection that this node opens, made anew whenever it breaks
channel        a session's way to a peer's data plane, used by the generation loop directly
log_limit      a bound on what strangers can make a node write into its log
"""
