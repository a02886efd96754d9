"""The model at the client: how tokens become logits and text.

config       the architecture as numbers
unit         one fused linear layer as integers, the piece that peers hold
linear       the interface of executors that compute W x
draft        guesses of the next tokens, from the text itself
decoder      token ids to logits, through runs of layers
run          the interface of runs: consecutive layers computed in one place
layers       a run that is computed here, except for its W x
waves        rows of a pass in groups, one behind the other through a run
head         final norm and head: hidden states to logits
pool         one vector for a text, from its hidden states
parts        what a decoder needs from a model
rope         frequencies of rotary position embeddings
rotation     cosine and sine of the rows of a pass
cache        keys and values of one sequence
row_log      hidden states that go into layers which other devices compute
span         consecutive layers for caches of their own
tokenizer    text to token ids and back
named_tokens tokens that are named in other files than tokenizer.json
text_stream  text from tokens that come one by one
template     chat messages to a prompt
guide        the grammar that an answer follows
sampling     logits to a token id
stops        stop strings across tokens
generate     an answer as it grows
"""
