"""/v1, OpenAI's API.

endpoints  the handlers
answers    the bodies of answers
"""
