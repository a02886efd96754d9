"""One conversation with the peers that help to compute it.

session      a prompt answered in a privacy mode
candidates   the peers that may take part now
formation    who does what: guards, lanes, and what the planner thought of it
opening      channels, pads and the execution of a session, made from a formation
plan_line    the plan in one line
receipt      what an answer cost and who saw what
"""
