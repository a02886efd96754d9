"""Which published models a node holds: fair between members, the longest unasked first, the same after a restart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from node.errors import ConfigError
from node.serving.hosting import HostedModels
from node.serving.lending import Lending
from node.transfer import replicator
from node.transfer.published import PublishedModels
from node.transfer.replicas import Replica, allot, fair_parts
from node.transfer.replicator import KEPT_UNASKED_S, Replicator, names_of_replicas
from node.transport.registry import ConnectedPeer, PeerRegistry
from protocol.identity import Identity, PeerId
from protocol.link.hello import Hello
from protocol.membership.records import PublishedModel

ANN, BOB = PeerId("ann"), PeerId("bob")


def replica(
    number: int, publisher: PeerId = ANN, size: int | None = 100, layer: int = 10, asked: float = 0.0
) -> Replica:
    return Replica(bytes([number]) * 32, f"model{number}", publisher, asked, size, layer)


def shares(*models: Replica, memory: int, limit: int = 8) -> dict[int, int]:
    return {model_id[0]: share for model_id, share in allot(models, memory, limit).items()}


def test_who_publishes_many_models_gets_no_more_than_who_publishes_one() -> None:
    many = [replica(number, ANN) for number in range(4)]
    assert shares(*many, replica(9, BOB), memory=200) == {0: 25, 1: 25, 2: 25, 3: 25, 9: 100}
    assert shares(*many, replica(9, BOB, size=40), memory=200) == {0: 40, 1: 40, 2: 40, 3: 40, 9: 40}


def test_the_model_that_was_asked_for_longest_ago_goes_where_a_part_holds_no_layer() -> None:
    old, new = replica(1, layer=60, asked=1.0), replica(2, layer=60, asked=2.0)
    assert shares(old, new, memory=100) == {2: 100}
    flood = [replica(number, ANN, layer=60, asked=9.0) for number in range(3, 6)]
    kept = shares(*flood, replica(2, BOB, layer=60), memory=120)
    assert kept[2] == 60 and len(kept) == 2, "a flood of models takes nothing from another member"


def test_a_model_that_fits_nowhere_and_one_too_many_are_left_out() -> None:
    assert shares(replica(1, layer=500), replica(2), memory=120) == {2: 100}
    models = [replica(number, ANN, asked=float(number)) for number in range(5)]
    assert set(shares(*models, replica(9, BOB), memory=10_000, limit=3)) == {3, 4, 9}
    assert shares(replica(1), memory=0) == {} and shares(memory=100) == {}


@given(st.integers(0, 10_000), st.dictionaries(st.integers(), st.none() | st.integers(0, 5000), max_size=9))
def test_parts_are_fair(total: int, needs: dict[int, int | None]) -> None:
    parts = fair_parts(total, needs)
    assert parts.keys() == needs.keys() and sum(parts.values()) <= total
    for key, need in needs.items():
        assert need is None or parts[key] <= need
        if need is None or parts[key] < need:  # it would take more: nobody has more than one byte above it
            assert all(other <= parts[key] + len(needs) for other in parts.values())


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class House:
    """One node's replicator, and the peers that it hears."""

    def __init__(self, path: Path | None) -> None:
        self.registry, self.clock, self.is_on = PeerRegistry(), Clock(), True
        self.lending = Lending(None, self.clock)
        self.replicator = Replicator(
            path, HostedModels([]), self.registry, self.lending, lambda: self.is_on, self.clock
        )

    def hears(self, number: int, *models: int) -> PeerId:
        identity = Identity.from_seed(bytes([number]) * 32)
        hello = Hello(identity.public_key, (1,), "a", (), 1, (), 1, (1,), bytes(8))
        if self.registry.peer(identity.peer_id) is None:
            self.registry.up(ConnectedPeer(identity.peer_id, hello, "127.0.0.1", True))
        published = tuple(PublishedModel(bytes([model]) * 32, f"model{model}") for model in models)
        self.registry.announce(identity.peer_id, {}, published=published)
        return identity.peer_id

    def holds(self) -> set[int]:
        return {model_id[0] for model_id in self.replicator.look(1000, ()).bytes_of}


def test_what_is_taken_back_ends_and_what_a_silent_member_published_stays(tmp_path: Path) -> None:
    house = House(tmp_path / "replicas.json")
    ann = house.hears(1, 7, 8)
    assert house.holds() == {7, 8}
    house.hears(1, 8)
    target = house.replicator.look(1000, ())
    assert set(target.bytes_of) == {bytes([8]) * 32} and target.withdrawn == {bytes([7]) * 32}
    house.registry.down(ann)
    assert house.holds() == {8}, "its publisher may come back"
    again = House(tmp_path / "replicas.json")
    assert again.holds() == {8}, "all devices may have started again at once"
    assert names_of_replicas(tmp_path / "replicas.json") == {"08" * 32: "model8"}
    again.clock.now += KEPT_UNASKED_S - 1
    again.lending.count(ann, bytes([8]) * 32, 1, 1)
    again.clock.now += 2
    assert again.holds() == {8}, "somebody asked"
    again.clock.now += KEPT_UNASKED_S
    assert again.holds() == set()


def test_nobody_but_its_first_publisher_takes_a_model_back_or_names_it() -> None:
    house = House(None)
    ann = house.hears(1, 7)
    assert house.holds() == {7}
    house.registry.down(ann)
    house.hears(2, 7)
    assert house.holds() == {7} and house.replicator.names()[bytes([7]) * 32] == ("model7", ann)
    house.hears(2)
    target = house.replicator.look(1000, ())
    assert set(target.bytes_of) == {bytes([7]) * 32} and target.withdrawn == frozenset()


@pytest.mark.parametrize("is_away", [False, True])
def test_a_flood_pushes_out_nothing_that_is_held(is_away: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(None)
    ann = house.hears(1, 1, 2)
    assert house.holds() == {1, 2}
    if is_away:
        house.registry.down(ann)
    monkeypatch.setattr(replicator, "MAX_KNOWN", 32)  # a flood of 152 models
    for member in range(2, 40):
        house.clock.now += 1
        house.hears(member, *range(4 * member, 4 * member + 4))
    held = house.replicator.look(10**9, ())
    assert {bytes([1]) * 32, bytes([2]) * 32} <= set(house.replicator.names()) and held.withdrawn == frozenset()
    for _ in range(3):
        house.clock.now += 2
        again = house.replicator.look(10**9, ())
        assert again.bytes_of == held.bytes_of and again.withdrawn == frozenset(), "nothing comes and goes"


def test_a_peer_whose_record_has_not_come_takes_nothing_back() -> None:
    house = House(None)
    ann = house.hears(1, 7)
    assert house.holds() == {7}
    peer = house.registry.peer(ann)
    assert peer is not None
    house.registry.up(replace(peer, published=None))
    assert house.holds() == {7}


def test_it_is_off_where_the_owner_says_so_and_leaves_out_what_is_held_anyway() -> None:
    house = House(None)
    house.hears(1, 7, 8)
    assert set(house.replicator.look(1000, {bytes([7]) * 32}).bytes_of) == {bytes([8]) * 32}
    house.is_on = False
    assert house.holds() == set()


def test_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "replicas.json").write_text('{"replicas": [{"model_id": "../x"}]}')
    house = House(tmp_path / "replicas.json")
    house.hears(1, 7)
    assert house.holds() == {7} and "07" * 32 in (tmp_path / "replicas.json").read_text()
    (tmp_path / "published.json").write_text("{")
    with pytest.raises(ConfigError, match="published"):
        PublishedModels(tmp_path / "published.json")


def test_a_device_publishes_four_models_and_tells_an_open_swarm_only_what_was_asked_for(tmp_path: Path) -> None:
    published = PublishedModels(tmp_path / "published.json")
    ids = [f"{number:02x}" * 32 for number in range(5)]
    assert published.add(ids[0], by_hand=False) == [] and published.add(ids[1], by_hand=True) == []
    assert published.ids(in_open_swarm=True) == [ids[1]] and published.ids(in_open_swarm=False) == [ids[1], ids[0]]
    published.add(ids[1], by_hand=False)
    assert published.ids(in_open_swarm=True) == [ids[1]], "an import does not undo what the user asked for"
    ended = [one for model_id in ids[2:] for one in published.add(model_id, by_hand=False)]
    assert ended == [ids[0]]
    assert [model.model_id for model in PublishedModels(tmp_path / "published.json").all()] == [*ids[:1:-1], ids[1]]
    assert published.remove(ids[1]) and not published.remove(ids[1])
    assert len(json.loads((tmp_path / "published.json").read_text())["models"]) == 3
