"""The interface for programs: HTTP and WebSocket on loopback, and the same over a Unix socket.

    http/    the checks that every request passes, and what all handlers share
    chat/    requests for answers, and how answers are read, whatever API they came by
    openai/  /v1, OpenAI's API
    anthropic/  /v1/messages, Anthropic's API
    ollama/  /api, Ollama's API
    live/    /ws, for interfaces
    client/  how a command reaches the running node
    config   where the gateway listens
    routes   the handler of each path
    server   thread, event loop, sockets    Gateway

The gateway only translates: HTTP requests into requests to node.engine and node.operations, their events into frames.
"""
