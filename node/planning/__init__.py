"""What a request will cost, before it is made.

figures    what the cost model adds up
probe      measures this device for one model
placement  which kinds of units are lent
cut        which rows go to which lane, and as which chunks    split_prompt_for_remote
cost       the cost model: seconds and bytes of a request
planner    the forecast of each mode, and which of them `auto` means
"""
