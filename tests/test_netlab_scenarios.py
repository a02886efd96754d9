"""Shorter scenarios of the laboratory, and a small crowd; skipped, with the reason, where namespaces are refused."""

from __future__ import annotations

import json
import subprocess

import pytest

from scripts.harness.programs import environment, program
from scripts.networks.converge import percentile
from scripts.networks.netlab import EXIT_NOT_PERMITTED

pytestmark = pytest.mark.swarm


@pytest.mark.parametrize(
    "scenario",
    [pytest.param(name, marks=pytest.mark.long) for name in ("join", "mdns", "ipv6", "forged", "weather")],
)
def test_scenario(scenario: str) -> None:
    command = [*program("scripts.networks.netlab"), "--json", "--logs", scenario]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment())
    if result.returncode == EXIT_NOT_PERMITTED:
        pytest.skip(result.stderr.strip())
    verdict = json.loads(result.stdout)
    assert result.returncode == 0 and verdict["good"], verdict.get("failure", result.stderr)


@pytest.mark.long
def test_a_small_crowd_converges() -> None:
    command = [*program("scripts.networks.converge"), "--json", "--nodes", "5", "--changes", "10"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment())
    assert result.returncode == 0, result.stdout + result.stderr
    figures = json.loads(result.stdout)
    assert figures["good"] and 0 < figures["p50_s"] <= figures["p99_s"] <= figures["max_s"]


def test_percentiles_never_leave_the_values() -> None:
    values = [0.3, 0.1, 0.2]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile([7.0], 0.5)) == (0.2, 0.3, 7.0)
    assert percentile([float(number) for number in range(1, 101)], 0.99) == 99.0
