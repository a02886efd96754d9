"""/ws: state, chunks and logs as they change, and generations.

websocket  one client's frames, in and out
feed       what all clients get         Broadcaster
state      the state of the node as JSON
outbox     frames that wait for a client
"""
