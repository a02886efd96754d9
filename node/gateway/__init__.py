"""The interface to programs: HTTP and WebSocket on loopback, and the same over a Unix socket.

    http/    what every request passes, and what all handlers share
    openai/  /v1, as OpenAI's API
    live/    /ws, for interfaces
    client/  how a command reaches the running node
    config   where the gateway listens
    routes   which path leads to which handler
    server   thread, event loop, sockets    Gateway

It only translates: requests into those of node.engine and node.operations, their events into frames.
"""
