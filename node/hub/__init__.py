"""Models from the Hugging Face hub, through its own library, which is imported only when a model is pulled.

short_names  what people call well-known models
reference   what a user types: a short name, or ORG/NAME[@REVISION][:FILE]
selection   which files of a repository a model needs, decided purely
fetch       one file into the hub's cache; a break, or a kill, costs nothing that had arrived
registry    a model out of a package of the Python registry
pull        a repository becomes an imported model
"""
