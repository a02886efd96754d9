"""A plugin of pytest, loaded in the copy of the tree: writes down whose code ran, and why a test failed.

A fault counts as noticed only if a test said so: by an assertion, by an exception that was expected and did not come,
or by an error that the project declares. What cannot even be imported, or fails in some other way, proves nothing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import settings

FILE_VARIABLE = "KEKAHYDE_WITNESS"
"""Names the file to which this writes, one JSON object a line."""


def is_declared(exc: BaseException) -> bool:
    """Whether an exception says that a rule does not hold."""
    if isinstance(exc, BaseExceptionGroup):
        return all(map(is_declared, exc.exceptions))
    if isinstance(exc, pytest.fail.Exception):
        return not str(exc).startswith("Timeout")
    own = any(kind.__module__.partition(".")[0] in ("node", "protocol") for kind in type(exc).__mro__)
    return own or isinstance(exc, AssertionError)


def pytest_configure(config: pytest.Config) -> None:
    import node
    import protocol

    settings.register_profile("planted", deadline=None)  # a busy machine is no fault
    settings.load_profile("planted")
    _write({"ran": [node.__file__, protocol.__file__]})


def pytest_exception_interact(
    node: pytest.Item | pytest.Collector, call: pytest.CallInfo[object], report: pytest.TestReport
) -> None:
    assert call.excinfo is not None, "an exception was raised"
    exc = call.excinfo.value
    said = str(exc).strip().partition("\n")[0]
    # A report of a collection has no phase.
    noticed = getattr(report, "when", None) == "call" and is_declared(exc)
    _write({"test": node.nodeid, "noticed": noticed, "why": f"{type(exc).__name__}: {said}"})
    if noticed:
        node.session.shouldstop = "a fault was noticed"


def _write(line: dict[str, object]) -> None:
    with Path(os.environ[FILE_VARIABLE]).open("a") as file:
        file.write(json.dumps(line) + "\n")
