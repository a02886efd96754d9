"""Sources of pads for the rows of a session, by who makes their products.

batch   pads of one seed, and those of one chunk
source  the interface of a pad source
guard   products by a guard of group A
own     products by this device
pool    products by this device, made while it was idle
paired  products by a device of the same owner
none    no pads: plain rows, for devices that may read them
"""
