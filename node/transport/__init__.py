"""ZeroMQ as Kekahyde uses it: two planes, behind the gate, CURVE-encrypted, ZAP-authenticated.

gate           the TCP ports: strangers knock, members are let in
stranger       a connection of somebody who is not known yet
admissions     proofs that were given at the door, each good for one connection
callers        connections that stand, and which of them a frame came over
pump           passes bytes between a connection and its ROUTER (pump.c)
portable_pump  the same without a compiler
build_pump     builds pump.c at install
knock          knocks at other nodes' doors
sockets        options, keys and the ZAP handler: the one place where sockets are made
registry       who is connected, shared between threads
control        the small frames of all links, in asyncio in a thread of its own
listener       links that others open
dialler        a link that this node opens
dials          dialling as tasks
link           what every link shares
links          every open link
names          host names become addresses
conduct        how much of a thread's time messages of one peer may take, and which rules it broke
poller         waits for messages on many sockets at once
line           a data connection that this node opens, made anew whenever it breaks
farewells      connections end only after their sockets, as libzmq can bear it
channel        a session's way to a peer's data plane, used by the generation loop directly
log_limit      a bound on what strangers can make a node write into its log
"""
