"""Forged results at the gate that every result of a peer passes before it is used.

forgeries  `scripts/forgeries`: a table of kinds of forgery, how many were tried, and how many passed
target     a request for a real unit, and its honest result
changes    changes of field elements, many forged results at once
kinds      every kind of forgery
gate       what a client does with a result, from its frames to the verdict
control    weak checks, which must let the predicted share pass
"""
