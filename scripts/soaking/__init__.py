"""Random faults over a swarm of real processes, with a client that answers all the time.

soak    `scripts/soak`: an hour of them, and the verdict
faults  the faults, one after the other, all of them healed again
watch   memory and descriptors of processes against time
"""
