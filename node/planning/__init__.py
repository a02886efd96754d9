"""Predicts what a request will cost.

figures    the figures of the cost model
probe      measures this device for one model
placement  which kinds of units are lent
cut        which rows go to which lane, and in which chunks    split_prompt_for_remote
cost       the cost model: seconds and bytes of a request
spans      which layers go to which device of the same owner, and what that costs
kept       the file of peers' figures
planner    predictions, corrected by the outcome of earlier requests
watch      keeps what was measured at intervals
"""
