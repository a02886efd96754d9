"""Models on disk as exact integers: what an import writes and what a node maps into memory.

quantize    the W8 rule                                   unit        one fused linear layer and its file
manifest    what a model consists of; its hash is the id   client_file the float rest that stays at the client
importer    a checkpoint becomes a model, or nothing does  names       name -> id, and which folders were imported
stored      an imported model, ready to use                library     all models under one data directory
files       hashes, atomic writes, refusals by the disk   partial     a model that is still coming from peers
"""
