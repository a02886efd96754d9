"""What an interface knows and may ask for: the node, its events, the conversation. It draws nothing."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from tui.archive import Archive, read_conversation, written
from tui.chunks import ChunkBoard
from tui.conversation import Answer, Conversation, Turn
from tui.gateway import GatewayClient, GatewayError
from tui.launcher import NodeLauncher, StartError
from tui.settings import Settings, SettingsFile
from tui.snapshot import Fields, ModelFacts, NodeState

logger = logging.getLogger(__name__)

MAX_LOG_LINES = 2000
MAX_REMEMBERED = 1 << 20
"""Characters of a conversation that the node remembers."""
ACTIVITY_SAMPLES = 24
"""Length of a peer's sparkline; one sample for each state event with a change, at most about four a second."""
MODES = ("auto", "split", "strict", "trusted", "local")
STARTING = "◌ starting your node …"
TOO_LONG = "context_length_exceeded"
"""The error code of a refused prompt."""
LOST = "○ your node does not answer; trying again …"

OnChange = Callable[[str, Any], None]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of the log of the node or of this program."""

    time: float
    level: str
    logger: str
    message: str


class NodeSession:
    """One interface's view of one node. It calls `on_change(topic, subject)` in the event loop after each change.

    Topics: link, state, chunks, log, answer (subject: the Answer, which began, ended or got a note), token (subject:
    the Answer; hundreds a second), note (subject: its text), conversation (another one is shown).
    """

    def __init__(self, launcher: NodeLauncher, clock: Clock, on_change: OnChange) -> None:
        self.launcher = launcher
        self.clock = clock
        self.state = NodeState()
        self.board = ChunkBoard()
        self.conversation = Conversation()
        self.archive = Archive(launcher.place.data_dir)
        self.logs: deque[LogLine] = deque(maxlen=MAX_LOG_LINES)
        self.log_count = 0
        """Number of all lines so far; `logs` keeps the last of them."""
        self.activity: dict[str, deque[int]] = {}
        self.link = STARTING
        """What is wrong with the connection; empty if nothing is."""
        self._on_change = on_change
        self._client = GatewayClient(launcher.place, self._receive, self._linked)
        self._known = asyncio.Event()
        self._answers: dict[str, Answer] = {}
        self._recalled = False
        self._tasks: asyncio.TaskGroup | None = None
        self._early: list[Coroutine[Any, Any, None]] = []
        """Work that was requested before the node answered."""
        self.file = SettingsFile(launcher.place.data_dir)

    async def run(self) -> None:
        """Find or start the node and stay connected until cancelled; raises StartError, also if that node ends."""
        await self.launcher.ensure()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for work in self._early:
                    tasks.create_task(work)
                self._early.clear()
                tasks.create_task(self.launcher.watch())
                await self._client.run()
        except* StartError as ended:
            reason = next(error for error in ended.exceptions if isinstance(error, StartError))
        finally:
            self._tasks = None
            self._linked(False, "the node has ended")
        raise reason

    @property
    def model(self) -> ModelFacts | None:
        """The model that answers."""
        return self.state.model(self.model_name)

    @property
    def model_name(self) -> str:
        chosen = self.settings.model
        known = not self.state.models or self.state.model(chosen) is not None
        return (chosen if known else "") or self.state.node.model or "story"

    @property
    def settings(self) -> Settings:
        """The user's choices, which are remembered."""
        return self.file.settings

    @property
    def privacy(self) -> str:
        """The privacy mode for the next prompts."""
        return self.settings.privacy or self.state.node.default_privacy or "auto"

    def choose(self, **fields: Any) -> None:
        """Change settings, from the next prompt on; they are remembered."""
        self.file.change(**fields)
        self._on_change("state", None)

    @property
    def answer(self) -> Answer | None:
        """The newest answer."""
        turn = self.conversation.last
        return turn.answer if turn else None

    @property
    def busy(self) -> bool:
        return self.answer is not None and not self.answer.ended

    def ask(self, prompt: str) -> Turn:
        """Add a turn and send it as soon as the node is ready."""
        turn = Turn(prompt, self._new_answer())
        self.conversation.turns.append(turn)
        self._send(turn.answer)
        return turn

    def regenerate(self) -> Turn | None:
        """Answer the newest prompt again; the earlier answer stays beside the new one."""
        turn = self.conversation.last
        if turn is None:
            return None
        self.stop()
        turn.add(self._new_answer())
        self._send(turn.answer)
        return turn

    def drop_oldest(self) -> Turn | None:
        """Send the older half of the conversation no longer, and answer the newest prompt again; None if there is
        nothing to leave out."""
        if not self.conversation.drop_oldest():
            return None
        return self.regenerate()

    def stop(self) -> bool:
        """Stop the answer that is being written; its text so far stays."""
        answer = self.answer
        if answer is None or answer.ended:
            return False
        answer.stop()
        self._spawn(self._cancel(answer))
        self._on_change("answer", answer)
        return True

    def begin(self, conversation: Conversation | None = None) -> None:
        """Begin a new conversation, or go on with an earlier one; the old one stays in the archive."""
        self.stop()
        self.note_conversation()
        self.conversation = conversation or Conversation()
        self._on_change("conversation", self.conversation)

    def note_conversation(self) -> None:
        """The conversation has changed: remember it in the node's memory, and on the disk if the user keeps it."""
        conversation = self.conversation
        if not conversation.turns:
            return
        try:
            self.archive.note(conversation, time.time())
        except OSError as exc:
            conversation.kept = False
            self._on_change("note", f"the conversation could not be written ({exc.strerror}): it is only in memory")
        self._spawn(self._remember(conversation))

    async def _remember(self, conversation: Conversation) -> None:
        text = written(conversation)
        if len(text) > MAX_REMEMBERED:
            return
        try:
            await self.call("conversation_put", conversation=conversation.id, text=text)
        except GatewayError as exc:
            logger.info("the node does not remember this conversation: %s", exc)

    async def forget_conversation(self, conversation: Conversation) -> None:
        """Delete a conversation, here, on the disk and in the node; one on the screen goes too. Raises OSError."""
        self.archive.delete(conversation)
        if conversation is self.conversation:
            self.stop()
            self.conversation = Conversation()
            self._on_change("conversation", self.conversation)
        try:
            await self.call("conversation_drop", conversation=conversation.id)
        except GatewayError as exc:
            logger.info("the node could not forget a conversation: %s", exc)

    async def _recall(self) -> None:
        """Take over what the node remembers, and go on with the newest if nothing was asked yet."""
        try:
            kept = Fields(await self.call("conversations")).mapping("conversations")
        except GatewayError as exc:
            logger.info("the node remembers no conversations: %s", exc)
            return
        texts = [text for text in kept.values() if isinstance(text, str)]
        self.archive.take(texts)
        newest = read_conversation(texts[-1]) if texts else None
        if newest is not None and not self.conversation.turns:
            self.conversation = next(one for one in self.archive.all() if one.id == newest.id)
            self._on_change("conversation", self.conversation)

    async def call(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Perform a management operation of the node; raises GatewayError."""
        return await self._client.call(op, **arguments)

    def log(self, line: LogLine) -> None:
        self.logs.append(line)
        self.log_count += 1
        self._on_change("log", line)

    def _new_answer(self) -> Answer:
        answer = Answer(f"tui-{secrets.token_hex(6)}", self.clock())
        self._answers[answer.request] = answer
        return answer

    def _send(self, answer: Answer) -> None:
        self._spawn(self._generate(answer))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._tasks is not None:
            self._tasks.create_task(work)
        else:
            self._early.append(work)

    async def _generate(self, answer: Answer) -> None:
        await self._known.wait()
        if answer.ended:  # stopped before the node answered
            return
        answer.asked_at = self.clock()
        asked = self.conversation.asked_of(self.model, self.settings.system)
        if asked.note:
            answer.notes.append(asked.note)
            self._on_change("note", asked.note)
        names = {"request": answer.request, "model": self.model_name, "privacy": self.privacy}
        try:
            await self.call("generate", **names, **asked.fields, **self.settings.sampling())
        except GatewayError as exc:
            answer.fail(self._refusal(str(exc), exc.code), exc.code)
        self._on_change("answer", answer)

    def _refusal(self, message: str, code: str) -> str:
        """The node's message; a chat sends the whole conversation, so there the message must say that this is what is
        too long."""
        is_chat = self.model is not None and self.model.chat
        if code == TOO_LONG and is_chat and len(self.conversation.turns) > 1:
            return f"{message}; the whole conversation counts: ctrl+n begins a new one, ctrl+t drops the oldest turns"
        return message

    async def _cancel(self, answer: Answer) -> None:
        try:
            await self.call("cancel", request=answer.request)
        except GatewayError as exc:
            logger.info("cancel: %s", exc)

    def _linked(self, connected: bool, reason: str) -> None:
        if not connected:
            if not self.link:
                logger.warning("lost the node: %s", reason)
            self._known.clear()
            for answer in self._answers.values():
                answer.fail("the node stopped answering; press ctrl+r to ask again when it is back")
                self._on_change("answer", answer)
            self._answers.clear()
        self.link = "" if connected else LOST
        self._on_change("link", None)

    def _receive(self, event: Mapping[str, Any]) -> None:
        match event.get("type"):
            case "state":
                self._take_state(NodeState.of(event))
            case "chunks":
                items = event.get("items")
                dropped = Fields(event).count("dropped")
                self.board.apply(items if isinstance(items, list) else [], self.clock(), dropped)
                self._on_change("chunks", None)
            case "log":
                fields = Fields(event)
                message = fields.text("message")
                self.log(LogLine(fields.number("time"), fields.text("level"), fields.text("logger"), message))
            case "generation":
                self._take_generation(event)
            case _:
                pass

    def _take_state(self, state: NodeState) -> None:
        before = {peer.peer_id: peer.chunks for peer in self.state.peers}
        for peer in state.peers:
            samples = self.activity.setdefault(peer.peer_id, deque(maxlen=ACTIVITY_SAMPLES))
            samples.append(max(0, peer.chunks - before.get(peer.peer_id, peer.chunks)))
        for gone in self.activity.keys() - {peer.peer_id for peer in state.peers}:
            del self.activity[gone]
        self.board.labels = {peer.peer_id: peer.label for peer in state.peers}
        running = {request.request for request in state.requests}
        for request in self.state.requests:
            if request.request not in running:
                self.board.close(request.request)
        self.state = state
        if not self._known.is_set():
            self._known.set()
            if not self._recalled:
                self._recalled = True
                self._spawn(self._recall())
        self._on_change("state", None)

    def _take_generation(self, event: Mapping[str, Any]) -> None:
        answer = self._answers.get(str(event.get("request")))
        if answer is None:
            return
        kind = event.get("event")
        if kind == "error":
            event = {**event, "message": self._refusal(Fields(event).text("message"), Fields(event).text("code"))}
        answer.apply(event, self.clock())
        if kind == "note":
            self._on_change("note", answer.notes[-1])
        if kind in ("receipt", "error"):
            self._answers.pop(answer.request, None)
            self.board.close(answer.request)
            self.note_conversation()
        self._on_change("token" if kind in ("token", "prefill") else "answer", answer)
