"""The process and the system that it runs on.

allowance    memory and cores that it may use: the machine's or the container's
core_dumps   forbids core dumps, which would hold prompts and keys
descriptors  how many files this process may open
endurance    restarts a part that fails, or ends the node
memory       returns free memory to the system
"""
