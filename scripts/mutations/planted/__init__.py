"""The table of planted faults, by what they break.

pads      one-time pads: uniform, and each for one row
shapes    what peers see beside the rows: sizes, counts, what is reused
checks    the gate that every result passes
paths     the ways to a result, all of which lead through the gate
exchanges requests that are prepared before their rows are there, and sent in C
modes     privacy modes, roles and consent
guards    who is chosen, who is kept out, and for how long
spans     layers on the user's own devices
door      who is let in: keys, proofs, signatures
bounds    sizes and paths that others choose
"""

from scripts.mutations.mutation import Mutant
from scripts.mutations.planted.bounds import BOUNDS
from scripts.mutations.planted.checks import CHECKS
from scripts.mutations.planted.door import DOOR_FAULTS
from scripts.mutations.planted.exchanges import EXCHANGES
from scripts.mutations.planted.guards import GUARDS
from scripts.mutations.planted.modes import MODES
from scripts.mutations.planted.pads import PADS
from scripts.mutations.planted.paths import PATHS
from scripts.mutations.planted.shapes import SHAPES
from scripts.mutations.planted.spans import SPANS

MUTANTS: tuple[Mutant, ...] = (
    *PADS,
    *SHAPES,
    *CHECKS,
    *PATHS,
    *EXCHANGES,
    *MODES,
    *GUARDS,
    *SPANS,
    *DOOR_FAULTS,
    *BOUNDS,
)
