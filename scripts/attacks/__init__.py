"""Attacks on real node processes, by a stranger, a member or a serving peer, and what they cost an honest client.

attack          `scripts/attack`: what one attack does, as a row of a table
stranger        one attack on one node, as a separate process
crash           attacks that end a node's process, or fill its memory, within seconds
floods          attacks that cost the attacker little and delay the node's honest work
target          what an attacker knows about a node, and how a member gets through its door
raw_zmtp        the client side of a CURVE connection, byte by byte
serving         a serving peer that attacks its client
measure         runs an attack in another process, and measures the memory of the node
member_load     `scripts/members`: how much a member that loads a guard slows an honest client
hostile_member  that member, as a separate process
"""
