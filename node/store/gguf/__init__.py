"""GGUF files: one file that holds weights, vocabulary and configuration of a model.

parts       which files a model consists of
header      reads metadata and places of tensors, within limits
tensors     rows of a tensor, widened to float32
layout      names and row order of tensors, in the file and in a checkpoint
values      metadata of one architecture
family      fields that only some architectures have
rope        rotary embeddings
config      turns metadata into the architecture as numbers
vocabulary  turns metadata into tokenizer.json and tokenizer_config.json
checkpoint  opens a file, or the parts of a split one
"""
