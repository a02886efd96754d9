"""/v1/messages, Anthropic's API.

endpoints  the handlers
body       translates the body of a request into OpenAI's form
answers    the bodies of answers, and their events
"""
