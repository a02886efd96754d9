"""Hugging Face checkpoints: config.json, names of tensors, files.

config      config.json to the architecture as numbers
layout      which tensors a checkpoint holds
checkpoint  opens them
reference   the float32 model in torch, for comparison only
"""
