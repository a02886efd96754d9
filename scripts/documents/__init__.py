"""Tables, vectors and pictures of README.md and SPEC.md, made from the code or from a real run.

spec_tables   transitions and limits, as SPEC.md prints them
spec_vectors  the test vectors of SPEC.md
rooms         `scripts/rooms`: which package imports which
screenshot    `scripts/screenshot`: the pictures of README.md
"""
