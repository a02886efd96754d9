"""`scripts/bench NAME`: figures of one machine; every file here is a NAME.

swarm       one client with 2 and with 4 peers: speed by mode, and where the time goes
gateway     several streams at the same time through the gateway
spans       a model through the user's own devices, beside this device alone
trace       one pass taken apart, alone and lent, beside the least that it could take
exchange    one layer of one row through a peer, beside a bare round trip of the same bytes
gpu         `scripts/gpu_check`: the linear layers on an NVIDIA card; not run on one yet
rivals      one device alone, beside llama.cpp on the same weights
transfer    a model from peers, compared with a plain copy and a raw TCP copy
forecast    what the planner predicts, and the outcome
predict     what a large model costs over peers, by the same planner; nothing is measured
kernels     the linear kernels, compared with memory bandwidth and torch
perplexity  what the integers cost
memory      how much memory a client needs, thin and whole
tui         how smooth the interface is under load, and what it costs when idle
"""
