"""Models: the models here, transfers, and fetching more."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Input, Static

from tui.gateway import GatewayError
from tui.screens.base import NodeScreen
from tui.screens.question import ChoiceQuestion
from tui.session import NodeSession
from tui.snapshot import ModelFacts, TransferFacts
from tui.words import bar, bytes_words, duration_words

STATES = {"ready": "● ready", "fetching": "◐ fetching", "partial": "◑ partly here", "remote": "○ elsewhere"}
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
ON_SWARM = "◉ on the swarm"
FETCH = (
    "{by} calls it {name}; the model itself is {id}. Only its id says what it is: ask whom you trust for it. "
    "Fetched as a whole it answers here in every mode. A thin one keeps no weights of what peers compute, and needs "
    "them for every answer."
)
COLUMNS: tuple[tuple[str, int, int], ...] = (
    ("model", 22, 0),
    ("state", 14, 0),
    ("size", 8, 0),
    ("disk", 8, 120),
    ("layers", 7, 70),
    ("here", 8, 100),
    ("for", 9, 100),
    ("coverage", 26, 100),
)


class ModelsScreen(NodeScreen):
    """A table of models, the transfers below it, and an input to fetch one."""

    MODE = "models"
    ABOUT = (
        "**Enter** on a model makes it answer the next prompt and puts it on your swarm, whose members hold parts of "
        "it as they have room; **u** takes it off the swarm. On a model of another device, Enter fetches it. **p** "
        "fetches one by its name at Hugging Face (organisation/name) or by its id from peers. **x** cancels the "
        "newest transfer; fetching again continues it."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pull", "Fetch a model", id="models.pull", tooltip="Fetch a model"),
        Binding("u", "unpublish", "Take off the swarm", id="models.unpublish", tooltip="Take it off the swarm"),
        Binding("x", "cancel", "Cancel transfer", id="models.cancel", tooltip="Cancel the newest transfer"),
        Binding("escape", "leave_input", "Back", show=False),
    ]

    def __init__(self, session: NodeSession) -> None:
        super().__init__(session)
        self._shown: tuple[object, ...] = ()
        self._columns: list[tuple[str, int, int]] = []

    def body(self) -> ComposeResult:
        yield DataTable(id="models", cursor_type="row", zebra_stripes=True)
        yield Static(id="transfers", classes="panel", markup=False)
        yield Input(placeholder="Fetch: organisation/name, then Enter (Esc goes back)", id="pull")

    def on_mount(self) -> None:
        self.query_one("#pull").display = False
        self.query_one(DataTable).focus()

    def on_resize(self) -> None:
        columns = [column for column in COLUMNS if self.size.width >= column[2]]
        if columns != self._columns:
            self._columns, self._shown = columns, ()
            table: DataTable[Text] = self.query_one(DataTable)
            table.clear(columns=True)
            for title, width, _ in columns:
                table.add_column(title, width=width, key=title)
            self.show("state")

    def show(self, topic: str) -> None:
        super().show(topic)
        if topic == "state" and self._columns:
            self._show_models()
            self.query_one("#transfers", Static).update(transfers_text(self.session.state.transfers, self.size.width))

    def _show_models(self) -> None:
        state, chosen = self.session.state, self.session.model_name
        shown = (state.models, chosen)
        if shown == self._shown:
            return
        self._shown = shown
        table: DataTable[Text] = self.query_one(DataTable)
        row = table.cursor_row
        table.clear()
        titles = [title for title, _, _ in self._columns]
        for model in state.models:
            cells = _cells(model, model is state.model(chosen))
            table.add_row(*(Text(cells[title], no_wrap=True) for title in titles), key=model.model_id or model.name)
        table.move_cursor(row=row)

    @on(DataTable.RowSelected)
    def _choose(self, event: DataTable.RowSelected) -> None:
        model = self.session.state.model(event.row_key.value or "")
        if model is None:
            return
        if model.state in ("remote", "partial"):
            self._fetch(model)
            return
        if model.state != "ready":
            self.notify(f"{model.name} is not complete here yet: {model.coverage or model.state}", markup=False)
            return
        self.session.choose(model=model.name)
        self.notify(f"{model.name} answers from the next prompt on.", markup=False)
        if model.is_whole and not model.published and not self.session.state.node.swarm_open:
            done = f"{model.name} is on the swarm: members hold parts of it as they have room."
            self.run_worker(self._ask("publish", done, model=model.model_id))

    @work
    async def _fetch(self, model: ModelFacts) -> None:
        by = model.named_by or "Nobody"
        about = FETCH.format(by=by, name=model.name, id=model.model_id)
        question = ChoiceQuestion(f"Fetch {model.name}?", about, {"whole": "All of it (a)", "thin": "Thin (t)"})
        how = await self.app.push_screen_wait(question)
        if how is None:
            return
        named = {"name": model.name} if model.named_by and self._is_free(model) else {}
        thin = {"thin": True} if how == "thin" else {}
        await self._ask("pull", f"Fetching {model.name}.", model=model.model_id, **named, **thin)

    def _is_free(self, model: ModelFacts) -> bool:
        """Whether a model here could have the name that another device gave this one."""
        others = (other.name for other in self.session.state.models if other is not model)
        return NAME.fullmatch(model.name) is not None and model.name not in others

    def action_unpublish(self) -> None:
        table = self.query_one(DataTable)
        models = self.session.state.models
        model = models[table.cursor_row] if table.cursor_row < len(models) else None
        if model is None or not model.published:
            self.notify("This model is not on the swarm by this device.", markup=False)
            return
        done = f"{model.name} is off the swarm: members drop their parts of it."
        self.run_worker(self._ask("unpublish", done, model=model.model_id))

    def action_pull(self) -> None:
        line = self.query_one(Input)
        line.display = True
        line.focus()

    def action_leave_input(self) -> None:
        self.query_one(Input).display = False
        self.query_one(DataTable).focus()

    @on(Input.Submitted)
    def _pull(self, event: Input.Submitted) -> None:
        name = event.value.strip()
        if name:
            event.input.value = ""
            self.action_leave_input()
            self.run_worker(self._ask("pull", f"Fetching {name}.", model=name))

    def action_cancel(self) -> None:
        running = [transfer for transfer in self.session.state.transfers if transfer.state == "running"]
        if not running:
            self.notify("Nothing is being fetched.", markup=False)
            return
        self.run_worker(self._ask("pull_cancel", f"Cancelled {running[-1].model}.", transfer=running[-1].id))

    async def _ask(self, op: str, done: str, **arguments: Any) -> None:
        try:
            await self.session.call(op, **arguments)
        except GatewayError as exc:
            self.notify(str(exc), severity="error", markup=False)
        else:
            self.notify(done, markup=False)


def _cells(model: ModelFacts, chosen: bool) -> dict[str, str]:
    return {
        "model": f"{'▶' if chosen else ' '} {model.name}{f' ({model.named_by})' if model.named_by else ''}",
        "state": ON_SWARM if model.published else STATES.get(model.state, model.state),
        "size": bytes_words(model.size_bytes) if model.size_bytes else "–",
        "layers": str(model.layers),
        "here": model.held or "–",
        "disk": bytes_words(model.disk_bytes) if model.disk_bytes else "–",
        "for": "others" if model.state != "ready" else "chat" if model.chat else "stories",
        "coverage": model.coverage,
    }


def transfers_text(transfers: tuple[TransferFacts, ...], width: int) -> Text:
    """One bar per transfer, and its progress in words."""
    if not transfers:
        return Text("No transfers. p fetches a model; the built-in one needs none.")
    lines = []
    for transfer in transfers:
        share = transfer.done_bytes / transfer.total_bytes if transfer.total_bytes else 0.0
        lines.append(f"{transfer.model}  {bar(share, max(8, min(40, width // 3)))} {100 * share:.0f} %")
        lines.append(f"  {_progress(transfer)}")
    return Text("\n".join(lines))


def _progress(transfer: TransferFacts) -> str:
    sizes = f"{bytes_words(transfer.done_bytes)} of {bytes_words(transfer.total_bytes)}"
    if transfer.state == "failed":
        return f"✗ failed: {transfer.error or 'no reason given'}; p tries again and continues"
    if transfer.state != "running":
        return f"{'✓' if transfer.state == 'done' else '■'} {transfer.state}, {sizes}"
    line = f"▶ {sizes}, {bytes_words(transfer.rate_bytes_s)}/s from {transfer.sources} sources"
    if transfer.rate_bytes_s > 0 and transfer.total_bytes > transfer.done_bytes:
        left_s = (transfer.total_bytes - transfer.done_bytes) / transfer.rate_bytes_s
        line += f", {duration_words(left_s)} left"
    return f"{line} (x cancels)"
