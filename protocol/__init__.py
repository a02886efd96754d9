"""What travels between nodes, as pure functions and state machines: bytes in, values and bytes out.

No socket, no thread, no clock and no source of randomness lives here; callers pass them in. SPEC.md is the
normative text; the section that a file implements stands in brackets.

The ground:

    errors      the root of all errors; "we erred" and "they erred"
    discreet    values whose secrets are not shown when they are printed
    limits      every constant two nodes must agree on                    [10]
    cbor        the strict CBOR profile                                    [4]
    cbor_form   what CBOR is about to build, counted before it is built    [4]
    fields      typed reads from an untrusted map                          [5]
    pattern     pieces of patterns for headers                             [4]
    envelope    header frame and typed buffers                             [4]
    identity    Ed25519 keys, PeerIDs, CURVE keys, signatures              [3]
    multiaddr   addresses in libp2p's text form                            [3]
    message     what all messages have in common                           [5]
    work        what all requests for work have in common                  [5]

Seven wings that know the ground and not each other:

    link/ membership/ finding/ pairing/ linear/ spans/ transfer/

And on top:

    codec       every message as frames and back                           [5]
"""
