"""Real nodes in a virtual network on this machine: a few on a link with delay and loss, or many at once.

netlab         `scripts/netlab`: scenarios, each with a verdict and figures
scenarios      what happens to the nodes, and the required outcome
weights        a device without weights fetches them over the network and serves them
guessing       what guessed tokens bring
own_devices    what the user's own devices bring
weather        a wire that changes, partitions, devices that die, and a client that asks
placements     what each placement costs: predicted and measured
bandwidth      what a long prompt and a token cost over a slow wire: predicted and measured
devices        node processes on the devices of a network, and requests to them
forger         a member that gossips records that their owner never signed
network        network namespaces on one Ethernet, by the kernel or by our own switch
switch         that switch: frames are delayed and lost between TAP devices
converge       `scripts/converge`: how soon a whole swarm knows a change
converge_node  one node of that swarm, without a model
"""
