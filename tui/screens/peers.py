"""Peers: all peers, what they do, how fast and how well."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from tui.gateway import GatewayError
from tui.screens.base import NodeScreen
from tui.screens.sheet import TextScreen
from tui.session import NodeSession
from tui.snapshot import Fields, PeerFacts
from tui.widgets.live_table import LiveTable
from tui.words import bytes_words, peer_state, role_words, rtt_words, sparkline

EMPTY = (
    "No peers yet: your node answers alone, and that is fine.\n\n"
    "To add another device, of yours or of a friend:\n"
    "  here     press i, or: kekahyde-node invite\n"
    "  there    kekahyde-node join INVITATION\n\n"
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
    ("GMAC/s", 7, 70),
    ("sent", 8, 100),
    ("received", 8, 100),
)
"""Title, width, and the least width of the terminal at which the column is shown."""


class PeersScreen(NodeScreen):
    """One row per peer, and a panel for the chosen one."""

    MODE = "peers"
    ABOUT = (
        "Every device that this node knows. *RTT* is the round-trip time; *activity* counts chunks over the last "
        "seconds; *wrong* counts results that failed the check: a peer is banned after one. "
        "Choose a row for details. **i** invites a device."
    )

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "invite", "Invite a device", id="peers.invite", tooltip="Another device joins with it"),
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
        line = invited.text("line")
        self.app.copy_to_clipboard(line)
        self.app.push_screen(TextScreen("Invitation", invitation_markdown(line, invited.text("note"))))

    def body(self) -> ComposeResult:
        yield Static(EMPTY, id="no-peers", classes="empty", markup=False)
        yield LiveTable("peers")
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
            "GMAC/s": f"{peer.speed_gmacs:.1f}" if peer.speed_gmacs else "–",
            "sent": bytes_words(peer.bytes_up),
            "received": bytes_words(peer.bytes_down),
        }
        return tuple(cells[title] for title in titles)

    @on(LiveTable.Moved)
    def _show_details(self) -> None:
        chosen = self.query_one(LiveTable).cursor
        peer = next((peer for peer in self.session.state.peers if peer.peer_id == chosen), None)
        if peer is not None:
            self.query_one("#peer", Static).update(details(peer))


def invitation_markdown(line: str, note: str) -> str:
    """The text that says what to do with an invitation."""
    parts = [
        "On the other device:",
        f"```\nkekahyde-node join '{line}'\n```",
        "The line is on the clipboard. Whoever has it can join your swarm: give it to nobody else.",
        note,
    ]
    return "\n\n".join(part for part in parts if part)


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
