"""/v1, OpenAI's API.

endpoints  the handlers
body       reads and checks the body of a request
prepare    turns a body into a request to the engine
stream     passes events of one generation to a handler
answers    the bodies of answers
sse        server-sent events
"""
