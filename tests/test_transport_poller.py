"""Waiting for messages on many sockets and descriptors."""

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from node.transport.poller import Descriptor, Poller

LONG_S = 10.0
Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]


Pair = Callable[[], tuple[Socket, Socket]]


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def pair(context: Context) -> Iterator[Pair]:
    made: list[Socket] = []

    def pair() -> tuple[Socket, Socket]:
        near, far = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        made.extend((near, far))
        near.bind(f"inproc://{len(made)}")
        far.connect(f"inproc://{len(made)}")
        return near, far

    yield pair
    for socket in made:
        socket.close(linger=0)


def test_nobody_is_ready_until_the_time_is_over(pair: Pair) -> None:
    near, _far = pair()
    poller = Poller()
    poller.register(near)
    started = time.monotonic()
    assert poller.poll(0.05) == []
    assert time.monotonic() - started >= 0.05
    assert poller.poll(0.0) == []


def test_what_came_before_is_found(pair: Pair) -> None:
    near, far = pair()
    poller = Poller()
    far.send(b"before")
    poller.register(near)
    assert poller.poll(LONG_S) == [near]
    assert poller.poll(LONG_S) == [near], "as long as it is not read"
    assert near.recv() == b"before"
    assert poller.poll(0.0) == []


def test_what_comes_meanwhile_ends_the_wait(pair: Pair) -> None:
    near, far = pair()
    poller = Poller()
    poller.register(near)
    timer = threading.Timer(0.05, far.send, (b"meanwhile",))
    timer.start()
    assert poller.poll(None) == [near]
    timer.join()


def test_a_message_is_found_after_sending_has_heard_of_it(pair: Pair) -> None:
    """Sending takes in what libzmq's threads have said, so that the descriptor tells nothing any more."""
    near, far = pair()
    poller = Poller()
    poller.register(near)
    far.send(b"one")
    assert near.get(zmq.EVENTS) & zmq.POLLIN
    near.send(b"sent")
    assert poller.poll(LONG_S) == [near]


def test_all_that_are_ready_are_told_at_once(pair: Pair) -> None:
    (first, far), (second, other) = pair(), pair()
    bell = Descriptor(os.eventfd(1))
    poller = Poller()
    for one in (first, second, bell):
        poller.register(one)
    far.send(b"1")
    other.send(b"2")
    ready = poller.poll(LONG_S)
    assert len(ready) == 3 and all(any(one is each for each in ready) for one in (first, second, bell))
    os.close(bell.fd)


def test_who_is_not_registered_any_more_is_not_told_of(pair: Pair) -> None:
    near, far = pair()
    bell = Descriptor(os.eventfd(1))
    poller = Poller()
    poller.register(near)
    poller.register(bell)
    poller.unregister(near)
    far.send(b"1")
    assert poller.poll(LONG_S) == [bell]
    poller.unregister(bell)
    assert poller.poll(0.0) == []
    os.close(bell.fd)


def test_a_number_that_is_anothers_by_now_stays_that_of_the_other() -> None:
    poller = Poller()
    closed = Descriptor(os.eventfd(0))
    poller.register(closed)
    os.close(closed.fd)
    another = Descriptor(os.eventfd(1))
    assert another.fd == closed.fd, "the system gives the lowest free number"
    poller.register(another)
    poller.unregister(closed)
    assert poller.poll(LONG_S) == [another]
    os.close(another.fd)


def test_the_end_of_the_context_ends_the_wait(context: Context) -> None:
    near = context.socket(zmq.PAIR)
    poller = Poller()
    poller.register(near)
    ended: list[type[BaseException]] = []

    def wait() -> None:
        try:
            poller.poll(None)
        except zmq.ContextTerminated as exc:
            ended.append(type(exc))
        finally:
            near.close(linger=0)

    thread = threading.Thread(target=wait)
    thread.start()
    context.term()
    thread.join()
    assert ended == [zmq.ContextTerminated]
