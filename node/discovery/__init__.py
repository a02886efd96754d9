"""How nodes find each other beyond addresses that are given.

mdns        the local network          addresses   whom an own address leads to
"""
