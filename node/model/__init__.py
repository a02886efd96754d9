"""The model at the client's side: what a checkpoint is, and how tokens become logits and text.

config        the architecture as numbers            hf_config   read from a Hugging Face config.json
layout        which tensors a checkpoint holds       checkpoint  opens them; tensor_file maps one file
rope          rotary tables                          reference   the float32 model (torch), for comparison alone
tokenizer     text <-> token ids, streamed text      template    chat messages -> prompt
sampling      logits -> token id                     stops       stop strings across tokens
linear        the seam to whoever computes W x       decoder     hidden states around that seam; cache its memory
generate      the loop that joins all of it
"""
