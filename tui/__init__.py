"""The terminal interface: a client of a node's gateway, over its WebSocket, and of nothing else.

main           what `kekahyde-node` calls: the interface on this terminal, or in the browser
web            ... in the browser
launcher       finds the node of a data directory or starts one, and ends only the one that it started
gateway        the WebSocket: calls, events, and coming back after a break
session        what an interface knows and may ask for
snapshot       the state that a node sends, as frozen facts
chunks         the lives of chunks as rows, a timeline and a map of the model
conversation   prompts and answers, and what is sent for the next one
segments       cuts a stream of Markdown into pieces that are drawn quickly
words          everything that is said about a state or a size, in plain words
receipt_words  a receipt in plain words
clipboard      copying from a terminal
theme          the two themes
app            the application: modes, keys, and where news of the node goes
screens/       one file for each screen
widgets/       what screens are made of
"""
