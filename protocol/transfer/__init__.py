"""Blobs from several peers at once, verified piece by piece.

fetch     the state of one download
blob      one blob of it
choice    which piece is asked of whom
source    one peer that holds it
outline   hashes of the pieces
serve     what is sent to whom, within its credit
actions   what the caller is to do
messages  what both sides send
"""
