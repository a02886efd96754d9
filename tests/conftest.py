"""Fixtures of tests over real sockets: how patient links are, and that a test leaves no thread and no socket."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import zmq
from live_nodes import WAIT_S, planes

from node.transport import control
from node.transport.link import Pace


@pytest.fixture
def patient_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A raw client's control link says hello and nothing more; on a busy machine a test may outlast five seconds."""
    monkeypatch.setattr(control, "DEFAULT_PACE", Pace(silence_limit_s=10 * WAIT_S))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same life of a link, in tenths of a second."""
    monkeypatch.setattr(control, "DEFAULT_PACE", Pace(0.4, 0.1, 0.5, 0.02, 0.1))


@pytest.fixture(scope="module")
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    """Of sockets of the test's own."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def nothing_is_left_behind() -> Iterator[None]:
    """No thread, and no socket: collecting an open one is a ResourceWarning, which is an error here."""
    assert not planes()
    yield
    assert not planes()
    gc.collect()
