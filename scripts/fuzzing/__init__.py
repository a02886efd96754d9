"""Coverage-guided fuzzing of every decoder of what others send or wrote, and the same in short for the tests.

fuzz        `scripts/fuzz`: one process for each target, the table, the verdict
worker      that process: atheris, with coverage of `protocol` and `node`
targets     all targets, by name
target      what a target promises, and how that is measured
mutations   changes of an input: of its bytes, or of what it says
forms       how inputs are written: CBOR, JSON, frames, files
samples     real messages, records and invitations to begin with
tiny_model  the smallest models of each kind, to begin with
wire        targets of `protocol`: what other nodes send
files       targets: the files of models
settings    targets: the files of a data directory
served      a whole node in this process, for the targets of the gateway
bodies      targets: HTTP bodies of all APIs, schemas and grammars, whole requests
frames      target: frames of the WebSocket
"""
