"""What peers could learn about a prompt: examined as they could, and computed.

audit           `scripts/audit`: the long form of `kekahyde-node audit`
exposure        `scripts/exposure`: how likely a row is exposed in `split`
exposure_model  that chance, by simulation and by formula
"""
