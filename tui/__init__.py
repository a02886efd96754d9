"""The terminal interface: a client of a node's gateway, over its WebSocket, and of nothing else.

main.py          what `kekahyde-node` calls: the interface on this terminal, or in the browser (web.py)
launcher.py      finds the node of a data directory or starts one, and ends only the one that it started
gateway.py       the WebSocket: calls, events, and coming back after a break
snapshot.py      the state that a node sends, as frozen facts
chunks.py        the lives of chunks as rows, a timeline and a map of the model
conversation.py  prompts and answers, and what is sent for the next one
segments.py      cuts a stream of Markdown into pieces that stay quick to draw
words.py         everything that is said about a state, a receipt or a size, in plain words
app.py           the application: one store of what is known, the modes, the keys
screens/         one file for each screen
widgets/         what screens are made of
"""
