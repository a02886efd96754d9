"""Requests for answers, and how answers are read, whatever API they came by.

asked     what a program asks for, checked
body      reads a body in OpenAI's form; the other APIs are translated into it
fields    reads the fields that all requests share
messages  reads the messages of a chat
tools     reads the tools that a program offers
form      reads which form an answer must have
dialect   how a model writes tool calls and thoughts, and grammars for them
prepare   turns a body into requests to the engine
asking    what every handler of answers does first
stream    passes events of generations to a handler
reply     takes an answer's text apart: thoughts, text, calls of tools
answer    one answer as it grows
streaming one answer as a stream
whole     answers that are sent in one piece
embedding vectors of texts
sse       server-sent events
"""
