"""The screens: modes, and screens that open on top of them.

base     the common parts of every mode
chat     the conversation and the prompt
peers    all peers, what they do, how fast and how well
models   the models here, transfers, and fetching more
chunks   the pieces of work as they happen
logs     log lines of the node and of this interface
help     the keys, and the meaning of signs and modes
privacy  the privacy mode of the next prompts
settings system prompt, temperature and length
invitation  an invitation with its QR code
conversations  all conversations: go on, name, keep, export, delete
commands  commands that are typed in the prompt
lending  what this device does for others, and the rules for it
pairing  pairing with another device, by six digits
question asks for a line of text, or for yes or no
receipt  the receipt of an answer
trouble  the node could not be started, or ended
sheet    a text on top of a mode
"""
