"""How a command reaches the running node.

client      one call      call_node
connection  its socket    node_runs
generating  how `run` has the running node generate
"""
