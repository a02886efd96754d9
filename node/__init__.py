"""The process that every device runs.

    errors      failures, sorted by whose move is next
    paths       where files live, and the identity key
    kernels/    exact integer linear layers and the client's float code
    model/      checkpoints, tokenizer, sampling, the decoder
    store/      models as hashed W8 units
    transport/  control plane, data plane, authentication
    worker      linear layers for others
    execution/  chunks, lanes, pads, the gate, the merge: a linear layer computed by peers
    node        the one composition of all of it
    session     a prompt answered: local, split or strict, with its receipt
    cli         the command line

Imports point one way: `tui` -> `node` -> `protocol`.
"""
