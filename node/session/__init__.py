"""A session: prompts of one model in one privacy mode, answered with the help of peers.

session      answers prompts in a privacy mode
config       what a session should be like
planner      the plans of one session, and what they cost
candidates   the peers that may take part now
plan         what a session is made of: mode, lanes, spans, and the peers that may take part
formation    the role of each peer: guards, lanes, and the planner's prediction
opening      opens the channels, pads and lanes of a plan
span_opener  opens the stages of layers that the user's own devices compute
plan_line    the plan in one line
receipt      what an answer cost and who saw what
"""
