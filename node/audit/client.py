"""The client of the audit: a node of this process that asks, and records what it sent.

It answers by the same engine as every other command. A chunk's record, which interfaces and receipts read too, tells
the share that was sent and the pad that hid the row.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Self

from msgspec import Struct

from node.audit.truth import SentRows, true_rows_of
from node.audit.workers import Worker, Workers
from node.config import NodeConfig
from node.engine import Engine, GenerationRequest
from node.engine.request import Completed, Token
from node.engine.running import Running
from node.errors import KekahydeError
from node.execution.chunk import ChunkRecord
from node.execution.config import ExecutionConfig
from node.execution.interrupt import Interrupt
from node.model.sampling import SamplingParams
from node.node import Node
from node.planning.placement import Lend
from node.privacy import Privacy
from node.session.config import SessionConfig
from node.session.receipt import Receipt
from node.session.session import Session
from node.store.library import Library
from node.store.stored import StoredModel
from node.trust import PairedDevices
from protocol.identity import Identity
from protocol.limits import HASH_BYTES, OPERATOR_BYTES
from protocol.pairing.code import CERTIFICATE_DOMAIN, Certificate, certified

CONNECT_TIMEOUT_S = 20.0
PADS_TIMEOUT_S = 60.0
PAUSE_S = 0.05
CREDIT_S = 30.0
"""A worker that is slow gets work all the same: the audit is about what is sent."""


class NotAuditedError(KekahydeError):
    """A session did not run as the audit needs it."""


class Settings(Struct, frozen=True):
    """How the client asks in one session."""

    privacy: Privacy
    lend: Lend
    speculate: int
    """Rows of a pass with guesses; 0: none."""
    lanes: int = 2
    drafts: bool = False
    """Whether the guesses are those of a draft model: of the model itself, so that most are right."""
    pads_ahead: bool = False
    """Whether pads are made before anybody asks, for the longest of the texts."""
    pad_output: int = 0
    to_the_end: bool = False
    """Whether an answer has as many tokens as it may; otherwise it also ends where the model ends it."""


class Asked(Struct, frozen=True):
    """One text, and when it was computed."""

    number: int
    token_ids: tuple[int, ...]
    """Prompt and answer, without the last token, which no pass has computed."""
    num_prompt: int
    receipt: Receipt
    began_ns: int
    ended_ns: int

    @property
    def used_peers(self) -> bool:
        """Whether peers computed some of it; on a busy machine this device may have been quicker."""
        return self.receipt.chunks.verified > 0


class Recording(Struct, frozen=True):
    """A session: what was asked, and what its client sent."""

    settings: Settings
    asked: list[Asked]
    sent: SentRows


class RecordingEngine(Engine):
    """The engine, with somebody who looks at the record of every chunk."""

    def __init__(self, node: Node, library: Library, sessions: SessionConfig) -> None:
        super().__init__(node, library, sessions)
        self.on_chunk: Callable[[ChunkRecord], None] = lambda record: None

    def _open_session(
        self, first: Running, on_change: Callable[[ChunkRecord], None], interrupt: Interrupt
    ) -> Session:
        def seen(record: ChunkRecord) -> None:
            self.on_chunk(record)
            on_change(record)

        return super()._open_session(first, seen, interrupt)


class Client:
    """A node that asks these workers; a context manager.

    Args:
        paired: a worker that makes pads, as a device of the same owner does.
    """

    def __init__(
        self,
        workers: Workers,
        model: StoredModel,
        library: Library,
        threads: int | None,
        paired: Worker | None = None,
    ) -> None:
        self._model, self._library = model, library
        self._named = tuple(worker.peer_id for worker in workers.all)
        addresses = tuple(worker.address for worker in workers.all)
        identity = Identity.from_seed(secrets.token_bytes(32))
        self._node = Node(
            NodeConfig(
                identity,
                None,
                addresses,
                threads,
                swarm_key=workers.key,
                paired=None if paired is None else _paired(identity, paired),
            ),
            [model],
        )
        self._addresses = [str(address) for address in addresses]

    def __enter__(self) -> Self:
        self._node.__enter__()
        try:
            self._node.registry.wait_settled(self._addresses, len(self._addresses), CONNECT_TIMEOUT_S)
            if len(self._node.registry.usable()) < len(self._addresses):
                raise NotAuditedError("a worker of the audit cannot be reached: try again")
        except BaseException:
            self._node.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self._node.__exit__()

    def ask(self, settings: Settings, prompts: Sequence[Sequence[int]], max_tokens: int | Sequence[int]) -> Recording:
        """Ask these prompts one after the other, in one session."""
        sessions = SessionConfig(
            max_lanes=settings.lanes,
            named=self._named,
            lend=settings.lend,
            execution=ExecutionConfig(credit_s=CREDIT_S),
            pads_ahead=settings.pads_ahead,
        )
        asked, sent = [], SentRows(self._node.kernels)
        limits = [max_tokens] * len(prompts) if isinstance(max_tokens, int) else max_tokens
        if settings.pads_ahead:
            self._make_pads(max(len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True)))
        engine = RecordingEngine(self._node, self._library, sessions)
        with engine:
            for number, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
                engine.on_chunk = partial(sent.saw, text=number)
                asked.append(self._answer(engine, settings, number, prompt, limit))
        if not any(one.used_peers for one in asked):
            raise NotAuditedError(f"peers computed nothing in {settings.privacy.value}: this machine is too busy")
        for one in asked:
            sent.texts[one.number] = true_rows_of(self._model, self._node.kernels, one.token_ids)
        sent.find_places()
        return Recording(settings, asked, sent)

    def _make_pads(self, num_rows: int) -> None:
        """Let the node make so many rows of pads, as it does while nobody asks."""
        model = self._model
        units = [model.unit(ref.layer, ref.kind) for ref in model.units if ref.layer is not None]
        pool = self._node.pads.keep(model.model_id_bytes, lambda: units)
        deadline = time.monotonic() + PADS_TIMEOUT_S
        while pool.rows < num_rows:
            if time.monotonic() > deadline:
                raise NotAuditedError(f"only {pool.rows} of {num_rows} rows of pads were made ahead: try again")
            time.sleep(PAUSE_S)

    def _answer(
        self, engine: Engine, settings: Settings, number: int, prompt: Sequence[int], max_tokens: int
    ) -> Asked:
        request = GenerationRequest(
            f"audit {number}",
            self._model,
            tuple(prompt),
            SamplingParams(max_tokens=max_tokens, ignore_eos=settings.to_the_end),
            settings.privacy,
            continues=True,
            lend=settings.lend,
            speculate=settings.speculate,
            draft=self._model if settings.drafts else None,
            pad_output=settings.pad_output,
        )
        began_ns, answer, receipt = time.monotonic_ns(), [], None
        for event in engine.ask(request):
            if isinstance(event, Token):
                answer.append(event.id)
            elif isinstance(event, Completed):
                receipt = event.receipt
        if receipt is None or receipt.mode != settings.privacy.value:
            note = "" if receipt is None else receipt.note or ""
            raise NotAuditedError(f"a session in {settings.privacy.value} did not use its peers: {note}")
        ids = (*prompt, *answer)[:-1]
        return Asked(number, ids, len(prompt), receipt, began_ns, time.monotonic_ns())


def _paired(identity: Identity, device: Worker) -> PairedDevices:
    """The pairing of the client with a worker, as both would have signed it."""
    theirs = device.identity
    message = certified(bytes(HASH_BYTES), identity.public_key, theirs.public_key)
    signatures = [each.sign(CERTIFICATE_DOMAIN, message) for each in (identity, theirs)]
    certificate = Certificate(bytes(HASH_BYTES), identity.public_key, theirs.public_key, *signatures)
    devices = PairedDevices(identity)
    devices.add(theirs.peer_id, certificate, bytes([1] * OPERATOR_BYTES), time.time())
    return devices
