"""What other threads ask of the data plane."""

from made_parts import identity

from node.serving.commands import Borrow, Commands, Look
from node.transport.poller import Poller


def test_each_command_rings_the_bell_so_that_one_that_fails_stops_no_other() -> None:
    commands, poller = Commands(), Poller()
    poller.register(commands.bell)
    assert poller.poll(0.0) == []
    first, second = Borrow(identity(1).peer_id, "inproc://a"), Look()
    commands.put(first)
    commands.put(second)
    assert poller.poll(0.0) == [commands.bell] and commands.take() is first
    assert poller.poll(0.0) == [commands.bell], "whatever came of the first"
    assert commands.take() is second
    assert poller.poll(0.0) == []
    poller.unregister(commands.bell)
    commands.close()


def test_nothing_is_kept_once_nobody_takes_any_more() -> None:
    commands = Commands()
    commands.close()
    commands.close()
    commands.put(Look())
    assert commands._queue.empty()
