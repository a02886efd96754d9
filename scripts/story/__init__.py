"""Trains the small story-telling Llama that ships with the node (`node/models/story`).

train      the program: from folders of plain text to a complete checkpoint
text       turns folders of plain text into clean passages
tokenizer  learns a tokenizer from the training text
stream     turns passages into rows of tokens, in a reproducible order
model      the Llama, only for training
"""
