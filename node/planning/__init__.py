"""What a request will cost, before it is made.

series    a figure measured again and again: its mean, its median, its 95th percentile
measures  what is known of each peer's speed, queue and way, over all sessions of a node
probe     what this device does in what time
cost      the cost model: seconds and bytes of a request, purely
forecast  the forecast of each mode, and which of them `auto` means
"""
