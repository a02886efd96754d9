"""Processes that are killed at every write, one after the other: what is on the disk then is whole, and goes on.

killed_writes  `scripts/killed_writes`: every case at every write, and the table
cases          what is done while the process is killed, and what must hold afterwards
shim           a library before the system's own that ends the process at a chosen call
shim.c         its source
"""
