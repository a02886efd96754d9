"""GGUF files: one file that holds weights, vocabulary and configuration of a model.

parts       which files a model consists of
header      metadata and places of tensors, read and bounded
tensors     rows of a tensor, widened to float32
layout      which tensor of a file is which of a checkpoint
values      metadata of one architecture
family      what only some architectures have
rope        rotary embeddings
config      metadata to the architecture as numbers
vocabulary  metadata to tokenizer.json and tokenizer_config.json
checkpoint  opens a file, or the parts of a split one
"""
