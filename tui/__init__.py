"""The terminal interface: a client of a node's gateway, through its WebSocket only.

main           what `kekahyde-node` calls: the interface on this terminal, or in the browser
web            the interface in the browser
launcher       finds the node of a data directory or starts one, and ends only the one that it started
gateway        the WebSocket: calls, events, and reconnecting
session        what an interface knows and may ask for
snapshot       the state that a node sends, as frozen values
chunks         the history of chunks as rows, a timeline and a map of the model
settings       what the interface remembers: mode, model, theme, system prompt and the like
private_file   writes files that only this user can read
archive        all conversations: in memory, and kept on the disk
conversation   prompts and answers, and what is sent for the next one
segments       cuts a stream of Markdown into pieces that are drawn quickly
chain          the way of a token through the user's own devices
words          the words for states and sizes
receipt_words  a receipt in plain words
clipboard      copying from a terminal
theme          the two themes
app            the application: modes, keys, and passing the node's events to screens
screens/       one file for each screen
widgets/       the parts of screens
"""
