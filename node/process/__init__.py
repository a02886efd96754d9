"""The process and the system that it runs on.

allowance    memory and cores that it may use: the machine's or the container's
core_dumps   none are written: they would hold prompts and keys
descriptors  how many files the system lets this process open
endurance    a part that fails goes on and says so, or ends the node
memory       free memory goes back to the system
"""
