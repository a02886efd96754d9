"""What happens to the nodes of a laboratory, and what must come of it: each returns figures or raises LabError."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scripts.harness.programs import environment, program
from scripts.networks.bandwidth import bandwidth
from scripts.networks.devices import PORT, Device, Lab, LabError, invitation_of, must, wait
from scripts.networks.guessing import guessing
from scripts.networks.own_devices import own_devices
from scripts.networks.placements import placements
from scripts.networks.weather import weather
from scripts.networks.weights import receipt_of, weights

FORGER = program("scripts.networks.forger")
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario and the number of devices it needs."""

    size: int
    play: Callable[[Lab], Figures]
    by_default: bool = True
    """Whether it is played where no scenario is named."""

    @property
    def story(self) -> str:
        return (self.play.__doc__ or "").strip().splitlines()[0]


def check(condition: bool, failure: str) -> None:
    if not condition:
        raise LabError(failure)


def addrs_of(device: Device, other: Device) -> list[str]:
    """Where a device believes that another can be dialled."""
    return list(device.peers().get(other.peer_id, {}).get("addrs", []))


def join(lab: Lab) -> Figures:
    """A device that knows nothing joins by one line, and learns of members that the line does not name."""
    formed_s = lab.invited(2, "--no-mdns")
    newcomer = lab.devices[2]
    line = invitation_of(lab.devices[0])
    must(newcomer.call("join", "-", stdin=line + "\n"), "join")
    key = newcomer.folder / "swarm.key"
    check(key.stat().st_mode & 0o777 == 0o600, "the swarm's key may be read by others")
    began = time.monotonic()
    newcomer.start("--no-mdns")
    joined_s = lab.wait_mesh(lab.devices, began)
    listed = json.loads(must(newcomer.call("peers", "--json"), "peers"))["peers"]
    states = {peer["peer_id"]: peer["state"] for peer in listed}
    check(states == {device.peer_id: "alive" for device in lab.devices[:2]}, f"`peers` says {states}")
    return {"invitation_characters": len(line), "first_pair_s": formed_s, "third_from_start_to_mesh_s": joined_s}


def mdns(lab: Lab) -> Figures:
    """Members that are told no address find each other by multicast; a stranger on the same wire is left alone."""
    *members, stranger = lab.devices
    key = secrets.token_hex(32)
    for device in members:
        device.environment["KEKAHYDE_SWARM_KEY"] = key
    for device in (stranger, *members[:-1]):
        device.start()
    began = time.monotonic()
    members[-1].start()
    found_s = lab.wait_mesh(members, began)
    time.sleep(2)  # time in which the stranger would be found, were it not one
    check(not stranger.peers(), "the stranger found somebody")
    check(all(stranger.peer_id not in device.peers() for device in members), "somebody took the stranger in")
    check(all("mDNS found" in device.log() for device in members[1:]), "they met in another way")
    return {"members": len(members), "last_start_to_mesh_s": found_s}


def ipv6(lab: Lab) -> Figures:
    """Devices with IPv6 addresses alone: one joins by a line, two find each other by multicast; they lend."""
    lab.network.only_ipv6()
    listen = ("--listen", f"/ip6/::/tcp/{PORT}")
    client, pads, shares = lab.devices
    key = secrets.token_hex(32)
    for device in (client, pads):
        device.environment["KEKAHYDE_SWARM_KEY"] = key
        device.start(*listen, model="story")
    check("fd88" in str(client.addresses), f"it announces {client.addresses}")
    began = time.monotonic()
    found_s = lab.wait_mesh([client, pads], began)
    check("mDNS found" in client.log() + pads.log(), "they met in another way")
    must(shares.call("join", invitation_of(client)), "join")
    shares.start("--no-mdns", *listen, model="story")
    lab.wait_mesh(lab.devices, began)
    asked = ("--json", "--max-tokens", "8", "--temperature", "0", "--lend", "layers")
    alone, split = (receipt_of(client, "Once upon a time", *asked, "--privacy", mode) for mode in ("local", "split"))
    check(split["mode"] == "split" and split["chunks"]["verified"] > 0, f"nothing was lent: {split['note']}")
    check(split["text"] == alone["text"], "peers changed the text")
    return {"found_s": found_s, "address": client.addresses[0], "tokens_a_s": split["tokens_per_s"]}


def partition(lab: Lab) -> Figures:
    """The network falls in two; each side holds the other for dead and nobody else; then it heals."""
    formed_s = lab.invited(5, "--no-mdns")
    here, there = lab.devices[:3], lab.devices[3:]
    lab.network.partition([device.index for device in there])
    began = time.monotonic()
    for one, other in [(one, other) for one in here for other in there]:
        for left, right in ((one, other), (other, one)):
            wait(lambda a=left, b=right: a.sees(b, "dead"), 60, "a lost peer was not given up")  # type: ignore[misc]
    parted_s = time.monotonic() - began
    for side in (here, there):
        check(all(one.sees(other) for one in side for other in side if one is not other), "a live peer was given up")
    lab.network.heal()
    healed_s = lab.wait_mesh(lab.devices, time.monotonic(), 120)
    return {"mesh_s": formed_s, "all_given_up_s": parted_s, "mesh_again_s": healed_s}


def moved(lab: Lab) -> Figures:
    """A device loses power, gets another address, and comes back; it finds the others, and they find it there."""
    formed_s = lab.invited(3, "--no-mdns")
    traveller, others = lab.devices[2], lab.devices[:2]
    old = f"/ip4/{traveller.host}/tcp"
    traveller.kill()
    lab.network.move(2, "10.88.7.77")
    began = time.monotonic()
    traveller.start("--no-mdns", port=5822)
    again_s = lab.wait_mesh(lab.devices, began)
    new = "/ip4/10.88.7.77/tcp/5822"

    def listed(device: Device) -> bool:
        addrs = str(addrs_of(device, traveller))
        return new in addrs and old not in addrs

    for device in others:
        wait(lambda one=device: listed(one), 30, "the new address was not learnt")  # type: ignore[misc]
    return {"mesh_s": formed_s, "start_to_mesh_s": again_s, "new_address_known_by_all_s": time.monotonic() - began}


def stranger(lab: Lab) -> Figures:
    """A node that knows an address and not the key is refused, and both sides log why."""
    member, outsider = lab.devices
    member.start("--no-mdns")
    outsider.start("--no-mdns", "--bootstrap", member.addresses[0])
    reason = "is in another swarm"
    refused_s = wait(lambda: reason in outsider.log(), 20, "the outsider does not log why it is refused")
    wait(lambda: "does not know the key of this swarm" in member.log(), 5, "the member does not log whom it refuses")
    check(not member.peers() and not outsider.peers(), "a peer without the key is in the table")
    key = (member.folder / "swarm.key").read_text().strip()
    check(key not in member.log() + outsider.log(), "a log holds the swarm's key")
    line = next(line for line in outsider.log().splitlines() if reason in line)
    return {"refused_s": refused_s, "log": line.split(": ", 1)[-1][:160]}


def forged(lab: Lab) -> Figures:
    """A member gossips records of another that this one never signed; they are refused and the true one stays."""
    member, victim, forger = lab.devices
    lab.invited(2, "--no-mdns")
    true = [f"/ip4/{victim.host}/tcp/{PORT}/p2p/{victim.peer_id}"]
    wait(lambda: addrs_of(member, victim) == true, 20, "the victim's record was not learnt")
    key = (member.folder / "swarm.key").read_text().strip()
    command = [*FORGER, str(forger.folder), key, member.addresses[0], victim.peer_id]
    log = forger.folder / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            lab.network.command(forger.index, *command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(),
        )
    with process:
        assert process.stdout is not None and process.stdin is not None
        count = process.stdout.readline().strip()
        check(bool(count), f"the forger failed: {log.read_text()[-400:]}")
        wait(lambda: "broke the rules" in member.log(), 10, "the member does not log the forgery")
        check(member.sees(victim) and addrs_of(member, victim) == true, "a forged record was believed")
        check("10.88.99.99" not in str(member.peers()), "the lure is in the table")
        liar = wait_banned(member, (victim.peer_id,))
        process.stdin.close()
    line = next(line for line in member.log().splitlines() if "broke the rules" in line)
    return {"forgeries": int(count), "kept_out": liar, "log": line.split(": ", 1)[-1][:160]}


def wait_banned(member: Device, honest: tuple[str, ...]) -> str:
    """Why the member keeps somebody out, once it does."""

    def why() -> list[str]:
        others = [peer for peer_id, peer in member.peers().items() if peer_id not in honest]
        return [peer["excluded"] for peer in others if not peer["connected"] and "banned" in str(peer["excluded"])]

    wait(lambda: bool(why()), 20, "the forger was not kept out")
    return why()[0]


def dialout(lab: Lab) -> Figures:
    """A node that nobody can dial is a member over the links that it opens; its record names no address."""
    lab.invited(2, "--no-mdns")
    quiet = lab.devices[2]
    must(quiet.call("join", invitation_of(lab.devices[0])), "join")
    began = time.monotonic()
    quiet.start("--no-mdns", "--listen", "none")
    mesh_s = lab.wait_mesh(lab.devices, began)
    check(addrs_of(lab.devices[1], quiet) == [], "it announces an address")
    return {"start_to_mesh_s": mesh_s}


SCENARIOS: dict[str, Scenario] = {
    "join": Scenario(3, join),
    "mdns": Scenario(4, mdns),
    "ipv6": Scenario(3, ipv6),
    "partition": Scenario(5, partition),
    "moved": Scenario(3, moved),
    "stranger": Scenario(2, stranger),
    "forged": Scenario(3, forged),
    "dialout": Scenario(3, dialout),
    "weights": Scenario(4, weights),
    "placements": Scenario(3, placements),
    "bandwidth": Scenario(3, bandwidth, by_default=False),
    "guessing": Scenario(3, guessing),
    "own-devices": Scenario(3, own_devices),
    "weather": Scenario(5, weather),
}
