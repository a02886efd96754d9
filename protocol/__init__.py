"""What travels between nodes, as pure functions and state machines: bytes in, values and bytes out.

No socket, no thread, no clock and no source of randomness lives here; callers pass them in. SPEC.md is the
normative text; the section that each file implements stands in brackets.

    errors        the root of all errors; «we erred» and «they erred»
    limits        every constant two nodes must agree on                    [10]
    cbor          the strict CBOR profile                                    [4]
    identity      Ed25519 keys, PeerIDs, CURVE keys, signatures              [3]
    multiaddr     addresses in libp2p's text form                            [3]
    envelope      header frame and typed buffers                             [4]
    messages      one class for each message, with its body's form           [5]
    handshake     what may follow what on a link                             [6]
    door          who is let in before ZeroMQ reads a byte                  [6]
    zmtp          whether a CURVE handshake succeeded, seen from outside     [6]
    fields        typed reads from an untrusted map                          [5]
    field         F_p and the seam of its arithmetic                         [7]
    shares        seeds and one-time pads                                    [7]
    verification  Freivalds' check and the gate every result passes          [8]
"""
