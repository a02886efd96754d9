"""Models on disk as exact integers: what an import writes and what a node maps into memory.

hf/            Hugging Face checkpoints, as they are read
gguf/          GGUF files, as they are read
weight_source  what an import needs of either
tensor_file    one safetensors file, mapped
quantize       the W8 rule
unit_file      the file of one unit
client_file    the float tensors that stay at the client
manifest       what a model consists of; its hash is the model id
importer       a checkpoint becomes a model, or nothing does
names          name to id, and which folders were imported
stored         an imported model, ready to use
check_file     what is left of a unit whose weights went by
thin           a model whose lent units are checks alone
partial        a model that is still coming from peers
library        all models of one data directory
files          hashes, atomic writes, refusals by the disk
"""
