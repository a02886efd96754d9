"""A node whose clock jumps: the real program, with a time of day that is set now and then, as bad time servers do.

Timers count on the monotonic clock, which never jumps; whatever else looks at the time has to bear it.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time

from node.cli.main import main

TURN_S = 0.7
JUMPS_S = (-400 * 86400.0, -3600.0, -61.0, 0.0, 61.0, 3600.0, 400 * 86400.0)


def let_it_jump() -> None:
    """From now on, every few moments the time of day is another."""
    real, ahead_s = time.time, 0.0

    def jumping() -> float:
        return real() + ahead_s

    def jump() -> None:
        nonlocal ahead_s
        for jump_s in itertools.cycle(JUMPS_S):
            time.sleep(TURN_S)
            ahead_s = jump_s

    time.time = jumping
    threading.Thread(target=jump, name="clock", daemon=True).start()


if __name__ == "__main__":
    let_it_jump()
    main(sys.argv[1:])
