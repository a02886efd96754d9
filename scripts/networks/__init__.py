"""Real nodes in a network of this machine's own: a few on a wire with delay and loss, or many at once.

netlab         `scripts/netlab`: scenarios, each with a verdict and figures
scenarios      what happens to the nodes, and what must come of it
weights        a device without weights fetches them over the wire and serves them
placements     what each placement costs: said, and seen
devices        node processes on the devices of a network, and what is asked of them
forger         a member that gossips records that their owner never signed
network        network namespaces on one Ethernet, by the kernel or by a switch of our own
switch         that switch: frames are delayed and lost between TAP devices
converge       `scripts/converge`: how soon a whole swarm knows of a change
converge_node  one node of that swarm, without a model
"""
