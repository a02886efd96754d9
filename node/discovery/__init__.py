"""How nodes find each other beyond the addresses that they are given.

discovery     all of it together
mdns          the local network
reach_keeper  observed addresses and dial-back
addresses     whom an own address leads to
interfaces    own addresses, the most useful first
"""
