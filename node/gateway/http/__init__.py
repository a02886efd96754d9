"""What every request passes, and what all handlers share.

app         the checks before a handler, the errors after it
access      Host, Origin, token: decided purely
addresses   hosts as requests name them
connection  what a connection may cost before it asks
context     the node behind the gateway, for handlers
control     management operations
facts       /health and /metrics
metrics     the figures of /metrics
logs        the last lines of the log
threads     daemon threads for handlers
errors      refusals in OpenAI's form
limits      every bound
"""
