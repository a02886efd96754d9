"""How nodes find each other without given addresses.

discovery     joins the parts below
mdns          the local network
reach_keeper  observed addresses and dial-back
addresses     who can reach an address of this node
interfaces    own addresses, the most useful first
"""
