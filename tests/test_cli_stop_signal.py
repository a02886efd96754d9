"""A signal to stop is heard, whichever thread the kernel gives it to."""

from __future__ import annotations

import subprocess
import sys

import pytest

from node.cli.stop_signal import STOPPING

PROGRAM = """
import signal, threading, time
from node.cli.stop_signal import StopSignal

stopping = StopSignal()
other = threading.Thread(target=time.sleep, args=(60,), daemon=True)
other.start()
hit = threading.Timer({after_s}, lambda: signal.pthread_kill({target}.ident, signal.{name}))
hit.start()
{before}
stopping.wait()
print("left")
"""


@pytest.mark.parametrize("name", [number.name for number in STOPPING])
@pytest.mark.parametrize("target", ["other", "threading.main_thread()"])
@pytest.mark.parametrize(("after_s", "before"), [(0.2, ""), (0, "hit.join()")], ids=["in the wait", "before it"])
def test_the_wait_ends(name: str, target: str, after_s: float, before: str) -> None:
    program = PROGRAM.format(name=name, target=target, after_s=after_s, before=before)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert (ended.returncode, ended.stdout) == (0, "left\n"), ended.stderr
