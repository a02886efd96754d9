"""`python -m node` is `kekahyde-node`."""

from node.cli import main

main()
