"""Models from the Hugging Face hub, through its own library, which is imported only when a model is pulled.

reference   what a user types: ORG/NAME[@REVISION]
selection   which files of a repository a model needs, decided purely
fetch       one file into the hub's cache; a break, or a kill, costs nothing that had arrived
pull        a repository becomes an imported model
"""
