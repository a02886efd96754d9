"""The process that every device runs.

    config       the configuration of a node at its start
    errors       errors, sorted by who must act next
    json_file    reads JSON files of limited size
    paths        the paths of files, and the identity key
    places       how to reach a running node: its socket's path and its token
    version      the version of the program
    privacy      the modes that a user may ask for
    process/     the process and the system: descriptors, memory, core dumps, threads that fail
    kernels/     exact integer linear layers and the client's float code
    native/      both ends of an exchange in C
    model/       checkpoints, tokenizer, sampling, the decoder
    store/       models as hashed W8 units
    transport/   control plane, channels, authentication, the gate
    serving/     the data plane: linear layers and pieces for others
    trust/       devices of one owner
    guards/      which peers hold which place in `split`, over months
    discovery/   mDNS, and whether this node can be dialled
    swarm/       membership, the swarm key
    transfer/    weights from peers
    hub/         weights from Hugging Face
    measures/    measurements of peers
    planning/    predicts what a plan costs
    spans/       layers computed by the user's own devices, with their KV cache
    execution/   a linear layer computed by peers: chunks, lanes, pads, verification, merge
    conversations  conversations of interfaces, in memory
    node         joins all parts of a node
    session/     answers prompts in a privacy mode, with a receipt
    engine/      many requests at once
    operations/  what a user may do with a running node
    doctor/      what is wrong with this device, and what to do
    audit/       what peers receive, attacked as they could
    gateway/     the HTTP and WebSocket interface
    cli/         the command line

Imports point one way: `tui` -> `node` -> `protocol`.
"""
