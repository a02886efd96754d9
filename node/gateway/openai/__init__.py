"""/v1, OpenAI's API.

endpoints      the handlers of chats and completions
answers        the bodies of their answers
embeddings     the handler of /v1/embeddings
responses      the handler of /v1/responses
response_body  translates its body into that of a chat
response_form  its objects and events
remembered     the conversations that a response may continue
"""
