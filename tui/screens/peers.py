"""Peers: all peers, what they do, how fast and how well."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from tui.gateway import GatewayError
from tui.screens.base import NodeScreen
from tui.screens.invitation import InvitationScreen
from tui.screens.lending import LendingScreen, lending_line
from tui.screens.pairing import PairingScreen
from tui.screens.question import TextQuestion, YesNoQuestion
from tui.session import NodeSession
from tui.snapshot import Fields, PeerFacts
from tui.widgets.live_table import LiveTable
from tui.words import bytes_words, peer_state, role_words, rtt_words, sparkline

EMPTY = (
    "No peers yet: your node answers alone, and that is fine.\n\n"
    "To add another device, of yours or of a friend:\n"
    "  here     press i and carry the line over\n"
    "  there    install Kekahyde, start kekahyde-node, press F3 and j, and paste the line\n\n"
    "If you were invited, press j here.\n\n"
    "Peers compute on numbers that look like noise: they cannot read what you write."
)
COLUMNS: tuple[tuple[str, int, int], ...] = (
    ("peer", 14, 0),
    ("state", 12, 0),
    ("role", 16, 70),
    ("RTT", 8, 0),
    ("layers", 7, 100),
    ("activity", 24, 100),
    ("chunks", 7, 0),
    ("wrong", 5, 0),
    ("speed", 7, 70),
    ("sent", 8, 100),
    ("received", 8, 100),
)
"""Title, width, and the least width of the terminal at which the column is shown."""


class PeersScreen(NodeScreen):
    """One row per peer, and a panel for the chosen one."""

    MODE = "peers"
    ABOUT = (
        "Every device that this node knows. *RTT* is the round-trip time; *activity* counts chunks over the last "
        "seconds; *wrong* counts results that failed the check: a peer is banned after one; *speed* compares a peer "
        "with this device. "
        "Choose a row for details. **i** invites a device, **j** joins another swarm with an invitation, **l** shows "
        "what this device does for others. On the "
        "chosen peer: **n** names it, **p** pairs with it if it is yours, **b** bans it or lets it in again."
    )

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "invite", "Invite", id="peers.invite", tooltip="Another device joins with it"),
        Binding("j", "join", "Join", id="peers.join", tooltip="Enter a swarm with an invitation"),
        Binding("l", "lending", "Lending", id="peers.lending", tooltip="What this device does for others"),
        Binding("n", "name", "Name", id="peers.name", tooltip="Give the chosen peer a name"),
        Binding("p", "pair", "Pair", id="peers.pair", tooltip="Pair with the chosen peer, if it is yours"),
        Binding("b", "ban", "Ban", id="peers.ban", tooltip="Keep the chosen peer out, or let it in again"),
    ]

    def __init__(self, session: NodeSession) -> None:
        super().__init__(session)
        self._columns: list[tuple[str, int, int]] = []

    async def action_invite(self) -> None:
        """Show an invitation, a line with which another device joins, and put it on the clipboard."""
        try:
            invited = Fields(await self.session.call("invite"))
        except GatewayError as exc:
            self.notify(str(exc), severity="error", markup=False)
            return
        self.app.push_screen(InvitationScreen(invited))

    @property
    def chosen(self) -> PeerFacts | None:
        """The peer of the chosen row."""
        chosen = self.query_one(LiveTable).cursor
        return next((peer for peer in self.session.state.peers if peer.peer_id == chosen), None)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide keys that need a peer while there is none."""
        return action not in ("name", "pair", "ban") or bool(self.session.state.peers)

    @work
    async def action_join(self) -> None:
        """Ask for an invitation, and enter its swarm."""
        about = "Paste the invitation that `kekahyde-node invite` or F3 i shows on a device of the swarm."
        line = await self.app.push_screen_wait(TextQuestion("Join a swarm", about, placeholder="kekahyde:1:…"))
        if not line:
            return
        joined = await self._join(line)
        if joined is None:
            return
        await self._ask("restart", "")
        swarm = joined.text("swarm")
        self.notify(f"Your node starts again in the swarm {swarm}.", title="Joined", markup=False)

    async def _join(self, line: str) -> Fields | None:
        try:
            return Fields(await self.session.call("join", line=line))
        except GatewayError as exc:
            if "--replace" not in str(exc):
                self.notify(str(exc), title="Not joined", severity="error", timeout=10, markup=False)
                return None
        about = (
            f"This device is in the swarm {self.session.state.node.swarm}, with other members. It would leave that "
            "swarm and forget its key: only a new invitation from there brings it back."
        )
        if not await self.app.push_screen_wait(YesNoQuestion("Leave your swarm?", about, "Leave it", "Stay")):
            return None
        try:
            return Fields(await self.session.call("join", line=line, replace=True))
        except GatewayError as exc:
            self.notify(str(exc), title="Not joined", severity="error", timeout=10, markup=False)
            return None

    @work
    async def action_name(self) -> None:
        """Give the chosen peer a name of your own."""
        peer = self.chosen
        if peer is None:
            return
        about = f"Your own name for {peer.peer_id}; only this device shows it. Empty: the name that it says itself."
        value = peer.name if peer.named_here else ""
        name = await self.app.push_screen_wait(TextQuestion("Name this device", about, value, peer.name))
        if name is not None:
            await self._ask("name", f"It is called {name}." if name else "", peer=peer.peer_id, name=name)

    @work
    async def action_pair(self) -> None:
        """Pair with the chosen peer, or end its pairing."""
        peer = self.chosen
        if peer is None:
            return
        if peer.paired:
            about = f"{peer.label} makes no pads for you any more and cannot be used for `trusted`."
            if await self.app.push_screen_wait(YesNoQuestion("End this pairing?", about, "End it", "Keep it")):
                await self._ask("unpair", f"No longer paired with {peer.label}.", peer=peer.peer_id)
            return
        if await self._ask("pair_start", "", peer=peer.peer_id):
            self.app.push_screen(PairingScreen(self.session, peer.peer_id, peer.label))

    @work
    async def action_ban(self) -> None:
        """Keep the chosen peer out, or let a banned one in again."""
        peer = self.chosen
        if peer is None:
            return
        if peer.excluded.startswith("banned"):
            await self._ask("forget", f"{peer.label} may come in again.", peer_id=peer.peer_id)
            return
        about = f"{peer.label} gets no link and no work from this device until you let it in again with b."
        if await self.app.push_screen_wait(YesNoQuestion(f"Ban {peer.label}?", about, "Ban it", "Leave it")):
            await self._ask("ban", f"{peer.label} is banned.", peer_id=peer.peer_id, reason="by hand")

    async def _ask(self, op: str, done: str, **arguments: str) -> bool:
        try:
            await self.session.call(op, **arguments)
        except GatewayError as exc:
            self.notify(str(exc), severity="error", timeout=10, markup=False)
            return False
        if done:
            self.notify(done, markup=False)
        return True

    def body(self) -> ComposeResult:
        yield Static(EMPTY, id="no-peers", classes="empty", markup=False)
        yield LiveTable("peers")
        yield Static(id="lends", markup=False)
        yield Static(id="peer", classes="panel", markup=False)

    def on_resize(self) -> None:
        columns = [column for column in COLUMNS if self.size.width >= column[2]]
        if columns != self._columns:
            self._columns = columns
            self.query_one(LiveTable).set_columns([(title, width) for title, width, _ in columns])
            self.show("state")

    def show(self, topic: str) -> None:
        super().show(topic)
        if topic != "state" or not self._columns:
            return
        peers = self.session.state.peers
        table = self.query_one(LiveTable)
        self.query_one("#no-peers").display = not peers
        self.query_one("#peer").display = table.display = bool(peers)
        titles = [title for title, _, _ in self._columns]
        table.set_rows([(peer.peer_id, self._cells(peer, titles)) for peer in peers])
        self._show_details()
        self.query_one("#lends", Static).update(lending_line(self.session.state.lending))

    def action_lending(self) -> None:
        """Show what this device does for others."""
        self.app.push_screen(LendingScreen(self.session))

    def _cells(self, peer: PeerFacts, titles: list[str]) -> tuple[str, ...]:
        cells = {
            "peer": peer.label,
            "state": peer_state(peer),
            "role": role_words(peer.roles),
            "RTT": rtt_words(peer.rtt_ms),
            "layers": peer.layers or "–",
            "activity": sparkline(self.session.activity.get(peer.peer_id, ())),
            "chunks": str(peer.chunks),
            "wrong": str(peer.rejected),
            "speed": speed_words(peer.speed_gmacs, self.session.state.node.speed_gmacs),
            "sent": bytes_words(peer.bytes_up),
            "received": bytes_words(peer.bytes_down),
        }
        return tuple(cells[title] for title in titles)

    @on(LiveTable.Moved)
    def _show_details(self) -> None:
        if self.chosen is not None:
            self.query_one("#peer", Static).update(details(self.chosen))


def speed_words(peer_gmacs: float, own_gmacs: float) -> str:
    """A peer's speed as a multiple of this device's, where both are known."""
    return f"{peer_gmacs / own_gmacs:.1f}×" if peer_gmacs and own_gmacs else "–"


def details(peer: PeerFacts) -> Text:
    """All known facts about one peer."""
    given = " (named here)" if peer.named_here else " (its own word)" if peer.name else ""
    lines = [
        f"{peer.name}{given}  {peer.peer_id}".lstrip(),
        f"{peer_state(peer)}{', paired: yours' if peer.paired else ''}, "
        f"{'linked' if peer.connected else 'not linked'}, {role_words(peer.roles)}",
        f"at {', '.join(peer.addrs) or 'no known address'}",
        f"version {peer.version or '?'}, operator {peer.operator or 'unknown'}, "
        f"{bytes_words(peer.memory_bytes)} memory, layers {peer.layers or 'none'}",
        f"{peer.chunks} chunks, {peer.rejected} wrong, {peer.queued} waiting, {bytes_words(peer.bytes_up)} sent, "
        f"{bytes_words(peer.bytes_down)} received",
    ]
    if peer.excluded:
        lines.append(f"✗ gets no work: {peer.excluded}")
    return Text("\n".join(lines))
