"""The terminal interface: a client of a node, never its owner. It has no code yet (SPEC.md, Decisions)."""
