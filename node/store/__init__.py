"""Models on disk as exact integers: what an import writes and what a node maps into memory.

hf/            reads Hugging Face checkpoints
gguf/          reads GGUF files
weight_source  what an import needs from either
tensor_file    one safetensors file, mapped into memory
quantize       the W8 rule
unit_file      the file of one unit
client_file    the float tensors that stay at the client
manifest       the list of a model's parts; its hash is the model id
importer       turns a checkpoint into a model
names          model names, and which folders were imported
stored         an imported model, ready to use
check_file     what is kept of a unit without its weights
thin           a model with only checks of its lent units
held_layers    a model of which some layers are computed for others
partial        a model that is still being fetched from peers
library        all models of one data directory
files          hashes, atomic writes, errors of the disk
"""
