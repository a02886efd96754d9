"""Strangers cannot fill a disk with log lines."""

import logging

import pytest

from node.transport.log_limit import BURST, LINES_A_SECOND, LogLimit


def test_a_burst_goes_through_then_one_now_and_then_with_a_count(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    limit = LogLimit(logging.getLogger("test.limit"), lambda: now[0])
    for number in range(1000):
        limit.warning("line %d", number)
    assert len(caplog.messages) == BURST
    now[0] += 1.01 / LINES_A_SECOND
    limit.warning("later")
    assert caplog.messages[BURST:] == ["990 lines like the next one were left out", "later"]
    limit.warning("at once again")
    assert len(caplog.messages) == BURST + 2
