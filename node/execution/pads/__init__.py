"""Pads of the rows of a session, by who makes their products.

batch   pads of one seed, and those of one chunk
source  what a lane needs of whoever yields pads
guard   products by a guard of group A
own     products by this device
paired  products by a device of the same owner
none    no pads: rows as they are, for devices that may read them
"""
