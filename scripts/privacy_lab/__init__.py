"""What peers could learn of a prompt: looked at as they would, and computed.

audit           `scripts/privacy_audit`: a session over tapped peers, with planted faults that must be caught
tap             what a tapped peer received, read back and examined
exposure        `scripts/exposure`: how likely a row is exposed in `split`
exposure_model  that chance, by simulation and by formula
"""
