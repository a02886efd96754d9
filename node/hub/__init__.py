"""Fetches models from the Hugging Face hub with the hub's library, which is imported only when a model is pulled.

short_names  short names of well-known models
reference   parses what a user types: a short name, or ORG/NAME[@REVISION][:FILE]
selection   decides which files of a repository a model needs; no I/O
fetch       fetches one file into the hub's cache; an interruption loses nothing that has arrived
search      finds models by their names
registry    takes a model out of a package of the Python registry
pull        turns a repository into an imported model
"""
