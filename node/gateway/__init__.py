"""The node's interface to programs: HTTP and WebSocket on loopback, and the same over a Unix socket.

    config      where it listens
    server      thread, event loop, sockets                     Gateway
    connection  what a connection may cost before it asks
    app         routes, and what every request passes first
    access      Host, Origin, token, decided purely
    addresses   hosts as requests name them
    control     management operations
    threads     ... each in one of its own
    openai      /v1: body (what is asked), prepare, answers, sse
    websocket   /ws: outbox, feed (what everybody is told), state
    facts       /health, /metrics: metrics
    stream      one generation on its way to a handler
    generating  how `run` has the running node generate
    client      how a command reaches the running node          call_node
    places      socket, token file
    errors      OpenAI's form of a refusal
    limits      every bound

It only translates: requests into those of node.engine and node.operations, their events into frames.
"""
