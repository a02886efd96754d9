"""The process that every device runs.

    errors       failures, sorted by whose move is next
    json_file    a JSON file, bounded
    paths        where files live, and the identity key
    places       where a running node is found: its gateway's address and token
    version      of the program
    privacy      the modes that a user may ask for
    process/     what the system grants: descriptors, memory, core dumps, threads that fail
    kernels/     exact integer linear layers and the client's float code
    model/       checkpoints, tokenizer, sampling, the decoder
    store/       models as hashed W8 units
    transport/   control plane, channels, authentication, the gate
    serving/     the data plane: linear layers and pieces for others
    trust/       devices of one owner
    guards/      which peers are asked first, over time
    discovery/   mDNS, and whether this node can be dialled
    swarm/       membership, the swarm key
    transfer/    weights from peers
    hub/         weights from Hugging Face
    measures/    what is known of peers
    planning/    what a plan costs, and which is best
    execution/   chunks, lanes, pads, the gate, the merge: a linear layer computed by peers
    node         the one composition of all of it
    session/     a prompt answered: local, split, strict or trusted, with its receipt
    engine/      many prompts at once
    operations/  what a user may do to a running node
    doctor/      what is wrong with this device, and what to do
    gateway/     the HTTP and WebSocket interface
    cli/         the command line

Imports point one way: `tui` -> `node` -> `protocol`.
"""
