"""Finds what is wrong with a node or its surroundings, and says what to do.

finding  one finding
device   processor, compiler, kernels, disk, clock
folder   the data directory
network  ports and multicast of this device
running  the running node: its addresses, its peers, their clocks
report   findings and versions to show to others, without what identifies anybody
"""
