"""The screens: modes, and what opens on top of them.

base     what every mode has
chat     the conversation and the prompt
peers    who is there, what they do, how fast and how well
models   what is here, what is on its way, and fetching more
chunks   the pieces of work as they happen
logs     what the node and this interface said
help     the keys, and what the signs and modes mean
privacy  the privacy mode of the next prompts
receipt  the receipt of an answer
trouble  the node could not be started, or ended
sheet    a text on top of a mode
"""
