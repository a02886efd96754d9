"""One attack on one node, as a process of its own: `-m scripts.attacks.stranger NAME TARGET SECONDS`.

TARGET is what `Target` prints. With `KEKAHYDE_SWARM_KEY` in its environment and `--member` the attacker is a member;
else it has a new key and knows the address alone. It ends by itself after SECONDS.
"""

from __future__ import annotations

import os
import time

import click

from node.swarm.credentials import ENVIRONMENT_KEY
from protocol.identity import Identity
from scripts.attacks.crash import CRASHES, MEMORY
from scripts.attacks.floods import DOOR, TIME
from scripts.attacks.target import Attack, Attacker, Target

ATTACKS: dict[str, Attack] = {**CRASHES, **MEMORY, **TIME, **DOOR}
MAX_SECONDS = 120.0


@click.command()
@click.argument("name", type=click.Choice(list(ATTACKS)))
@click.argument("target")
@click.argument("seconds", type=click.FloatRange(0, MAX_SECONDS))
@click.option("--member", is_flag=True, help="Attack from inside, with the swarm's key.")
def main(name: str, target: str, seconds: float, member: bool) -> None:
    """Attack a node in one way."""
    key = bytes.fromhex(os.environ[ENVIRONMENT_KEY]) if member else None
    attacker = Attacker(Identity.from_seed(os.urandom(32)), key)
    ATTACKS[name](Target.from_text(target), attacker, time.monotonic() + seconds)


if __name__ == "__main__":
    main()
