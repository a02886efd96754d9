"""A swarm on this machine, a prompt, and the same text computed locally for comparison.

swarm   `scripts/swarm`: something happens to nodes in the middle of an answer
guards  `scripts/guards`: what one slow, faulty or noisy guard costs an answer
demo    `scripts/demo`: a client and 4 nodes tell a story
thin    `scripts/demo --thin`: a client without weights, nodes that hold 60 % of the model, holders that are killed
"""
