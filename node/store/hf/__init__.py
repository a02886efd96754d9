"""Hugging Face checkpoints: config.json, names of tensors, files.

config        config.json to the architecture as numbers
reader        typed access to it, with refusals that name the key
family        what each model type leaves out of it, and fields of its own
window        which layers see a sliding window
rope          rotary embeddings
layout        which tensors a checkpoint holds
text_tensors  those of the text part of a larger model
checkpoint    opens them
reference     the float32 model in torch, for comparison only
"""
