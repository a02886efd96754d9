"""Faults that are planted one by one in a copy of the tree: a test must notice each.

mutants   `scripts/mutants`: plants them and says which test noticed
mutation  what a planted fault is, and whether its text still fits today's tree
planted   the table of all faults, by what they break
tree      the copy of the tree
trial     runs tests in the copy, and what became of a fault
witness   a plugin of pytest that writes down why a test failed
"""
