"""All layers of a model in one run: rows go from stage to stage, several steps of a prompt at once.

This device keeps what went into every stage that another computes. If a device is lost, somebody else computes its
layers from these rows again, or this device does, and the pass is repeated: the same bits, because every device has
the same kernels.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np

from node.errors import KekahydeError
from node.execution.interrupt import Interrupt
from node.execution.ledger import ChunkCounts, Timings
from node.execution.peer import PeerStatus
from node.kernels.interface import NotFiniteError
from node.measures.peers import Exchange
from node.model.cache import KVCache
from node.model.config import ModelConfig
from node.model.rotation import Rotation, Rotations
from node.model.run import Rows
from node.model.span import SpanPart, rows_of
from node.planning.spans import PASS_ROWS
from node.spans.crew import CacheGoneError, Crew
from node.spans.device import DeviceError, Flight, SpanDevice
from node.spans.edges import Edges
from node.spans.recheck import Lie, Recheck
from node.spans.stage import Stage
from node.spans.steps import Run, Step, cut, first_row, joined, remember
from protocol.linear.field import Floats
from protocol.spans.binding import rows_hash
from protocol.spans.messages import SpanResult

log = logging.getLogger(__name__)

TURN_S = 0.25
"""The longest wait before it looks again who is alive."""
MAX_GONE = 2
"""After a device has lost its caches more often in one pass, its layers go to another."""
LOST_S = 1.0
SLOWER = 4.0
"""Rows that a device handed on are sent from here too when no result has come after LOST_S, and as many times as long
as it should take."""


class SpanLieError(KekahydeError):
    """Results that were used have been computed again, and differ: what followed from them must be computed anew."""

    def __init__(self, called: str, wrong: Mapping[KVCache, int]) -> None:
        super().__init__(f"{called} computed a wrong result")
        self.wrong = wrong
        """By text: its first wrong row."""


Replace = Callable[[Stage, str], Sequence[Stage]]
"""Finds others for the layers of a stage whose device cannot go on, for this reason. Raises UnitUnavailableError."""


class SpanChain:
    """A `LayerRun` of all layers; only the session's thread uses it.

    Args:
        stages: cover all layers, in order.
        replace: finds others where a device is lost.
        recheck: computes results again; None: nothing is computed again.
        confirm: called before a device is blamed for a result that was computed again here; raises CorruptModelError
            if our own weights of these layers have changed.
    """

    def __init__(
        self,
        config: ModelConfig,
        stages: Sequence[Stage],
        replace: Replace,
        recheck: Recheck | None,
        interrupt: Interrupt | None,
        timings: Timings,
        counts: ChunkCounts,
        confirm: Callable[[range], None] = lambda layers: None,
    ) -> None:
        self.layers = range(config.num_layers)
        self.stages = list(stages)
        self.before_pass: Callable[[], None] = lambda: None
        """Called when a pass begins."""
        self.after_pass: Callable[[], None] = lambda: None
        """Called when all rows of a pass have come through."""
        self.went_through: Callable[[int], None] = lambda num_rows: None
        """Called with how many rows have come through one more layer, or through several layers together."""
        self.recheck = recheck
        self._gone_through = 0
        """Rows of the pass that have come through a layer, of all layers."""
        self._hidden_size = config.hidden_size
        self._rotations = Rotations(config.ropes, config.head_dim)
        self._replace = replace
        self._confirm = confirm
        self._interrupt = interrupt
        self._timings, self._counts = timings, counts
        self._settled: dict[SpanDevice, WeakKeyDictionary[KVCache, int]] = {}
        """By liar: from which position on a text has been computed again."""
        self._crew = Crew(interrupt, counts)
        self._edges = Edges()
        for stage in stages:
            if stage.device is not None:
                self._crew.join(stage.device)

    @property
    def devices(self) -> list[SpanDevice]:
        """All that ever took part, also by computing again what others had computed."""
        return [*self._crew.devices, *([] if self.recheck is None else self.recheck.witnesses)]

    def forward(self, hidden: Floats, rotations: Sequence[Rotation], blocks: Sequence[Rows]) -> Floats:
        """`LayerRun.forward`.

        Raises:
            SpanLieError: an earlier result is wrong; its device has been left.
            UnitUnavailableError: nobody computes some layers.
            PassCancelledError: the pass is not wanted any more.
        """
        self.before_pass()
        self._gone_through = 0
        self.look_for_lies()
        parts = [SpanPart(block.cache, int(block.positions[0]), int(block.positions[-1]) + 1) for block in blocks]
        while True:
            try:
                for place in range(len(self.stages)):
                    self._catch_up(place, parts)
                steps = cut(hidden, parts)
                self._run(steps, self.stages)
                break
            except DeviceError as exc:
                self._crew.cancel()
                self._give_up(exc.device, str(exc))
            except CacheGoneError as exc:
                self._crew.cancel()
                self._forgotten(exc.device)
            except BaseException:
                self._crew.cancel()
                raise
        for stage in self.stages:
            stage.gone = 0
        self.after_pass()
        self.look_for_lies()
        return steps[0].rows if len(steps) == 1 else np.concatenate([step.rows for step in steps])

    def attend(self, timeout_s: float) -> None:
        """While nothing runs: read what devices send, and end the caches of sequences that have ended.

        Raises:
            SpanLieError: a result of a finished answer is wrong, and so is what was kept of it.
        """
        self._crew.close_ended()
        self.look_for_lies()
        with contextlib.suppress(DeviceError, CacheGoneError):  # the next pass finds out
            for _late in self._crew.hear(timeout_s):
                pass

    def rest(self) -> None:
        """No request runs any more: nothing that is under way is wanted."""
        self._crew.cancel()

    def look_for_lies(self) -> None:
        """Raises SpanLieError if a result that was used has turned out to be wrong."""
        wrong: dict[KVCache, int] = {}
        called = ""
        while self.recheck is not None and (lie := self.recheck.found()) is not None:
            self._convict(lie)
            called, cache = lie.device.peer.called, lie.cache()
            called += "" if lie.witness is None else f" or {lie.witness.peer.called}"
            settled = self._settled.setdefault(lie.device, WeakKeyDictionary())
            if cache is not None and lie.position < settled.get(cache, cache.capacity + 1):
                settled[cache] = lie.position  # what this device computed of it from there on is not used any more
                wrong[cache] = min(lie.position, wrong.get(cache, lie.position))
        if wrong:
            raise SpanLieError(called, wrong)

    def close(self) -> None:
        """End the devices' caches and connections."""
        if self.recheck is not None:
            self.recheck.close()
        self._crew.close()

    # --- a pass

    def _catch_up(self, place: int, parts: Sequence[SpanPart]) -> None:
        """Compute what a stage lacks of the sequences of a pass, from the rows that went into it. What comes out is
        kept for the next stage if that lacks it too."""
        stage, following = self.stages[place], self.stages[place + 1 : place + 2]
        for cache, start in {part.cache: part.start for part in reversed(parts)}.items():
            held = stage.held(cache)
            if held >= start:
                continue
            rows = cache.inputs[stage.layers.start]
            at_once = PASS_ROWS if stage.lent else start - held
            for first in range(held, start, at_once):
                stop = min(first + at_once, start)
                steps = cut(rows.rows(first, stop), [SpanPart(cache, first, stop)])
                try:
                    self._run(steps, [stage])
                except NotFiniteError as exc:  # whichever row it was: it is this text's fault
                    raise NotFiniteError(first_row(cache, parts)) from exc
                if following and following[0].held(cache) < stop:
                    for step in steps:
                        remember(following[0], step)

    def _run(self, steps: Sequence[Step], stages: Sequence[Stage]) -> None:
        """Bring steps through stages; a stage gets the steps in their order."""
        run = Run(steps, stages, self._edges.reach(stages, len(steps), max(len(step.parts) for step in steps)))
        while len(run.waiting[-1]) < len(steps):
            for place in reversed(range(len(stages))):
                self._advance(run, place)
            if not run.flying:
                continue
            self._check_wanted()
            with self._timings.of("wait"):
                arrived = list(self._crew.hear(TURN_S))
            self._check_wanted()
            self._crew.check_alive()
            for step in run.arrive(arrived):
                self._accept_arrived(run, step)
            self._look_for_lost(run)

    def _advance(self, run: Run, place: int) -> None:
        """Give a stage the steps that wait for it, as many as it may have."""
        stage, waiting = run.stages[place], run.waiting[place]
        while waiting:
            if stage.device is None:
                steps = run.take(place, whole=bool(stage.lent))
                if not steps:
                    return
                if not stage.layers.start:
                    for step in steps:
                        remember(stage, step)
                self._compute_here(stage, steps)
                for step in steps:
                    run.goes_on(step)
                continue
            if not run.may_send(place):
                return
            step = waiting.popleft()
            remember(stage, step)
            with self._timings.of("send"):
                run.send(step)

    def _accept_arrived(self, run: Run, step: Step) -> None:
        """Use the results of a step that have come, stage by stage."""
        while step.place in step.arrived:
            device, flight, result = step.arrived.pop(step.place)
            del step.coming[step.place]
            stage = run.stages[step.place]
            if flight.handed:
                sender = run.stages[step.place - 1].device
                assert sender is not None, "a device handed it on"
                if result.inputs != rows_hash(step.rows):
                    log.warning("%s says that %s sent it other rows than here", device.peer_id, sender.peer_id)
                    self._edges.distrust(sender, device)
                    run.take_back(step)
                    return
                self._edges.arrived(sender, device)
                stage.direct += 1
            self._accept(stage, device, flight, step, result)
            if run.stages is self.stages:
                self._count(run, len(step.rows) * len(stage.layers))
            run.goes_on(step)
            if step.place not in step.coming:
                return
            remember(run.stages[step.place], step)
            if not result.passed:
                self._edges.kept(device, step.coming[step.place][0])
                run.take_back(step)
                return

    def _count(self, run: Run, num_rows: int) -> None:
        """Rows of a pass have come through one more layer; of a pass that is repeated nothing is said until it is
        further than before."""
        run.gone_through += num_rows
        if run.gone_through > self._gone_through:
            self.went_through(run.gone_through - self._gone_through)
            self._gone_through = run.gone_through

    def _look_for_lost(self, run: Run) -> None:
        """Send from here what was handed on, and seems not to have come to where it should."""
        now = time.monotonic()
        for step, device in run.handed():
            waited_s = now - step.ready_at
            if waited_s < LOST_S:
                continue
            num_rows, figures = len(step.rows), device.peer.measures.figures
            expected_s = figures.exchange_s(num_rows, num_rows * run.stages[step.place].macs, 2 * step.rows.nbytes)
            if waited_s > LOST_S + SLOWER * expected_s:
                sender = run.stages[step.place - 1].device
                assert sender is not None, "a device handed it on"
                self._edges.lost(sender, device)
                run.take_back(step)

    def _compute_here(self, stage: Stage, steps: Sequence[Step]) -> None:
        assert stage.here is not None, "a stage without a device is computed here"
        self._check_wanted()
        whole = joined(steps)
        for part in whole.parts:
            part.cache.hold(stage.layers)
        rotations = self._rotations.of([part.rotated for part in whole.parts])
        try:
            rows = stage.here.forward(whole.rows, rotations, rows_of(whole.parts))
        except NotFiniteError as exc:
            raise NotFiniteError(whole.first + exc.row) from exc
        for part in whole.parts:
            stage.computed_here(part.cache, part.stop)
        for step in steps:
            step.rows = rows[step.first - whole.first :][: len(step.rows)]

    def _accept(self, stage: Stage, device: SpanDevice, flight: Flight, step: Step, result: SpanResult) -> None:
        """A result is used if it is the answer to this very step."""
        with self._timings.of("verify"):
            genuine = result.answers(flight.binding, self._hidden_size) and bool(np.isfinite(result.rows).all())
        if not genuine:
            self._crew.ban(device)
            raise DeviceError(device, "a result of it is not the answer to its request")
        now = time.monotonic()
        compute_s = min(result.compute_us / 1e6, now - flight.sent_at)
        seconds = max(now - max(flight.sent_at, step.ready_at), compute_s)  # it may have come before the rows did
        self._timings.add("peers", compute_s)
        device.computed(flight)
        num_rows = len(step.rows)
        way_s = (seconds - compute_s) * (2 if flight.handed else 1)  # as if the rows had gone out from here
        exchange = Exchange(num_rows, num_rows * stage.macs, 2 * step.rows.nbytes, compute_s + way_s, compute_s)
        device.peer.measures.computed(exchange)
        if num_rows == 1:
            stage.row_s.add(seconds)
        if self.recheck is not None:
            row = 0
            for part in step.parts:
                own = slice(row, row + part.stop - part.start)
                lie = self.recheck.saw(device, stage.layers, part, step.rows[own], result.rows[own])
                if lie is not None:
                    self._convict(lie)
                    raise DeviceError(device, device.trouble or "a result of it is wrong")
                row = own.stop
        step.rows, step.ready_at = np.array(result.rows), now

    def _check_wanted(self) -> None:
        if self._interrupt is not None:
            self._interrupt.check()

    # --- devices that are left

    def _forgotten(self, device: SpanDevice) -> None:
        device.forget_caches()
        for stage in self.stages:
            if stage.device is device:
                stage.gone += 1
                if stage.gone > MAX_GONE:
                    self._give_up(device, "it does not keep the text's cache")
                    return

    def _give_up(self, device: SpanDevice, reason: str) -> None:
        """Others compute its layers from now on."""
        self._counts.lost += 1
        device.forget_caches()
        stages: list[Stage] = []
        for stage in self.stages:
            stages += [stage] if stage.device is not device else self._replace(stage, reason)
        for stage in stages:
            if stage.device is not None:
                self._crew.join(stage.device)
        self.stages = stages

    def _convict(self, lie: Lie) -> None:
        if lie.witness is None:  # its layers go to others when they are needed next
            if not lie.device.peer.gone:
                self._confirm(lie.layers)
                log.warning("a result of %s was computed again here, and differs", lie.device.peer_id)
                self._crew.ban(lie.device)
            return
        if not lie.witness.peer.gone:
            log.warning("results of %s and %s differ: neither is used", lie.device.peer_id, lie.witness.peer_id)
            self._counts.rejected += 1
            lie.witness.peer.status = PeerStatus.DOUBTED
        for device in (lie.device, lie.witness):
            self._crew.doubt(device.peer_id)
