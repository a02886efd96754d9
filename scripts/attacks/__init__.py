"""Attacks on real node processes, by a stranger, a member or a serving peer, and what they cost an honest client.

attack          `scripts/attack`: what one attack does, as a row of a table
stranger        one attack on one node, as a process of its own
crash           what ends a node's process, or fills its memory, within seconds
floods          what costs the attacker little and makes the node's honest work wait
target          what an attacker knows of a node, and how a member gets through its door
raw_zmtp        the client side of a CURVE connection, byte by byte
serving         a serving peer that turns on its client
measure         an attack beside this process: its life, and the memory of the node
member_load     `scripts/members`: what an honest client pays for a member that loads its guard
hostile_member  that member, as a process of its own
"""
