"""Random faults in a swarm of real processes, while a client generates answers all the time.

soak      `scripts/soak`: an hour of faults, and the verdict
faults    the faults, one after the other, each of which ends again
pressure  few descriptors, a full disk
watch     memory, descriptors and threads of processes over time
"""
