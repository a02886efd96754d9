"""What peers could learn about a prompt: examined as they could, and computed.

audit           `scripts/privacy_audit`: a session over recording peers, with planted faults that must be caught
tap             examines what a recording peer received
exposure        `scripts/exposure`: how likely a row is exposed in `split`
exposure_model  that chance, by simulation and by formula
"""
