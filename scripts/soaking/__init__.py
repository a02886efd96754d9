"""Random faults in a swarm of real processes, while a client generates answers all the time.

soak    `scripts/soak`: an hour of faults, and the verdict
faults  the faults, one after the other, each of which ends again
watch   memory and descriptors of processes over time
"""
