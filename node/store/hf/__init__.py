"""Reads Hugging Face checkpoints: config.json, names of tensors, files.

config        turns config.json into the architecture as numbers
reader        typed access to config.json; errors name the key
family        defaults and special fields of each model type
window        which layers see a sliding window
rope          rotary embeddings
layout        names and shapes of a checkpoint's tensors
text_tensors  the tensors of the text part of a larger model
checkpoint    opens a checkpoint
reference     the float32 model in torch, only for comparison
"""
