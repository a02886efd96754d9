"""What is wrong with a node or its surroundings, each with the next step.

finding  one finding
device   processor, compiler, kernels, disk, clock
folder   the data directory
network  ports and multicast of this device
running  the node that runs: its addresses, its peers, their clocks
"""
