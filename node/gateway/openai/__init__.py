"""/v1, as OpenAI's API.

endpoints  the handlers
body       what is asked, checked
prepare    a body becomes a request of the engine
stream     one generation on its way to a handler
answers    the bodies of answers
sse        server-sent events
"""
