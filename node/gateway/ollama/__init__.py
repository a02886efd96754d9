"""/api, Ollama's API.

endpoints  the handlers of answers
models     the handlers that list, show and fetch models
body       translates the body of a request into OpenAI's form
answers    the lines of answers
"""
