"""How a command reaches the running node.

client      one call    call_node
generating  how `run` has the running node generate
"""
