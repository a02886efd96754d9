"""Measurements that run all the time and are kept over all sessions.

series  one figure: its mean, median and 95th percentile
peers   speed, queue and round trip of each peer
"""
