"""`scripts/bench NAME`: figures of one machine; every file here is a NAME.

swarm       one client with 2 and with 4 peers: speed by mode, and where the time goes
gateway     streams side by side through the gateway
transfer    a model from peers, beside a plain copy and a raw TCP copy
forecast    what the planner predicts, and how it really goes
kernels     the linear kernels, against what memory and torch can do
perplexity  what the integers cost
memory      what a client needs of memory, thin and whole
tui         how smooth the interface is under load, and what it costs at rest
"""
