"""`kekahyde-node audit`: what peers receive in real sessions, attacked as they could.

audit          one model: workers, clients and sessions
scenario       one session: asked, recorded, attacked
metadata       what sizes, counts and times tell
prompts        texts of other topics, languages and lengths
tapped         the worker process: a real node that also gives away what it receives
workers        worker processes, started and ended here
client         the node that asks, and records what it sent
tap            what a worker received, read as messages
truth          the true rows, and which share hides which
views          what one peer, or some together, have seen
attacks        all attacks on the views of one session, and their controls
inversion      from a row to its token
distinguisher  which of two texts it was
uniformity     whether field elements are uniform and independent
reuse          whether two rows have one pad
recovery       what pads and shares give together
statistics     p-values and intervals
findings       claims, controls and figures
report         the table and the JSON report
"""
