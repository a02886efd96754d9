"""What is measured all the time and kept over all sessions.

series  one figure: its mean, median and 95th percentile
peers   speed, queue and round trip of each peer
"""
