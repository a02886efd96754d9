"""Trains the small story-telling Llama that ships with the node (`node/models/story`).

train      the program: from folders of plain text to a complete checkpoint
text       folders of plain text become clean passages
tokenizer  learned from the training text
stream     passages become rows of tokens, in an order that can be repeated
model      the Llama, for training alone
"""
