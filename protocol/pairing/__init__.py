"""Two devices of one owner recognise each other by six digits.

pairing   every attempt of one device
attempt   one attempt, step by step
states    its states and events
code      the digits and the certificate
messages  what both sides send
"""
