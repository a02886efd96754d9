"""The checks that every request passes, and what all handlers share.

app         the checks before a handler, the errors after it
access      whether Host, Origin and token allow a request; no I/O
addresses   hosts as requests name them
connection  limits for a connection before its first request
keys        keys for programs on other devices
context     the node behind the gateway, for handlers
control     management operations
facts       /, /health and /metrics
metrics     the figures of /metrics
logs        the last lines of the log
threads     daemon threads for handlers
errors      refusals in OpenAI's form
limits      all limits
"""
