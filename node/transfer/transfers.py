"""The transfers of a node: each runs in its own thread and is a job that interfaces show."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from node.errors import ConfigError, KekahydeError, ModelNotFoundError
from node.hub.pull import HubPull, PullProgress
from node.hub.reference import HubReference
from node.kernels.interface import Kernels
from node.model.config import UnitKind
from node.process.memory import give_back
from node.serving.hosting import HostedModels
from node.store.files import writing_to
from node.store.library import Library
from node.store.names import is_model_id
from node.store.stored import StoredModel
from node.transfer.borrowed import BorrowedUnits
from node.transfer.budget import MemoryBudget
from node.transfer.download import CancelledError
from node.transfer.jobs import Job, Jobs, JobState
from node.transfer.model_download import ModelDownload
from node.transfer.surroundings import Surroundings
from node.transport.registry import PeerRegistry
from node.transport.sockets import SecureContext
from protocol.identity import PeerId

log = logging.getLogger(__name__)

JOIN_S = 2.0
LIAR_BAN_S = 24 * 3600.0
"""How long a source is banned that lied."""
PULL_PATIENCE_S = 30.0
"""A pull fails if nobody holds the missing parts for this long; a fetch of layers to serve waits for ever."""

Ban = Callable[[PeerId, str, float], None]


class Transfers:
    """Starts, lists and stops transfers. Safe to share between threads.

    Args:
        models_dir: the folder of models; None: nothing can be fetched.
        ban: bans a liar.
        computes_spans: whether whole layers may be computed for somebody here.
    """

    def __init__(
        self,
        secure: SecureContext,
        registry: PeerRegistry,
        hosted: HostedModels,
        kernels: Kernels,
        models_dir: Path | None,
        ban: Ban,
        computes_spans: Callable[[], bool] = lambda: False,
    ) -> None:
        self._secure = secure
        self._registry = registry
        self._hosted = hosted
        self._kernels = kernels
        self._models_dir = models_dir
        self._ban = ban
        self.computes_spans = computes_spans
        self.on_imported: Callable[[StoredModel], None] = lambda model: None
        """Called, by the thread of a job, when a model of the hub is here and served."""
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.jobs = Jobs()

    def as_json(self) -> list[dict[str, Any]]:
        """The `transfers` of the gateway's state."""
        return self.jobs.as_json()

    def take_layers(self, model_id: str, budget: MemoryBudget) -> Job:
        """Fetch and serve the layers of a model that the swarm lacks most."""
        return self._begin("units", model_id, None, lambda download: download.bring_layers(budget))

    def add_layers(self, model_id: str, layers: Collection[int]) -> Job:
        """Fetch and serve these layers too, of a model of which some are served."""
        return self._begin("units", model_id, PULL_PATIENCE_S, lambda download: download.bring_these(layers))

    @property
    def peer_id(self) -> PeerId:
        """Of this node."""
        return self._secure.identity.peer_id

    def pull(
        self,
        model_id: str,
        lent: Collection[UnitKind] = (),
        patience_s: float | None = PULL_PATIENCE_S,
        name: str | None = None,
    ) -> Job:
        """Fetch a model: the whole of it, or a thin one that lends these kinds of units.

        Args:
            name: what the user calls it; a name that another model has by then stays with that one.
        """
        taken = self.jobs.running("units", model_id)  # units that we serve must stay: first that job

        def bring(download: ModelDownload) -> None:
            if lent:
                download.bring_thin(lent, taken)
            else:
                download.bring_all(taken)
            if name is not None:
                Library(self._folder()).add_name(name, model_id)

        return self._begin("thin" if lent else "pull", model_id, patience_s, bring)

    def borrower(self, model: StoredModel, limit_bytes: int) -> BorrowedUnits | None:
        """Fetches units of a model that are not here; None if there is no folder for them."""
        if self._models_dir is None:
            return None
        return BorrowedUnits(self._around(), model.model_id_bytes, model.manifest, limit_bytes)

    def pull_from_hub(self, reference: HubReference, name: str | None = None) -> Job:
        """Fetch a model from the Hugging Face hub, import it and serve it."""
        models_dir = self._folder()

        def work(job: Job) -> None:
            self.on_imported(_pull(job, reference, models_dir, name, self._hosted))

        return self.run("pull", str(reference), work)

    def run(self, kind: str, model: str, work: Callable[[Job], object]) -> Job:
        """Do any work as a job, in its own thread."""
        with self._lock:
            running = self.jobs.running(kind, model)
            if running is not None:
                return running
            job = self.jobs.add(Job(kind, model))
            thread = threading.Thread(target=_main, args=(job, work), name=f"transfer {job.id}", daemon=True)
            self._threads = [known for known in self._threads if known.is_alive()] + [thread]
            thread.start()
        return job

    def running_by_id(self) -> list[Job]:
        """Running jobs that fetch from peers."""
        return [job for job in self.jobs.all() if job.state is JobState.RUNNING and is_model_id(job.model)]

    def is_fetching(self, model_id: str) -> bool:
        """Whether anything of a model is being fetched from peers, for whatever reason."""
        return any(self.jobs.running(kind, model_id) is not None for kind in ("units", "pull", "thin"))

    def cancel(self, job_id: str) -> Job:
        """Ask a job to end. Raises ConfigError if there is none with this id."""
        job = self.jobs.find(job_id)
        if job is None:
            raise ConfigError(f"no transfer is called {job_id!r}: see the list of transfers")
        job.stop.set()
        return job

    def stop(self) -> None:
        """End all jobs; what was fetched is kept."""
        self.jobs.stop_all()
        for thread in self._threads:
            thread.join(JOIN_S)

    def _begin(
        self, kind: str, model_id: str, patience_s: float | None, work: Callable[[ModelDownload], object]
    ) -> Job:
        if not is_model_id(model_id):
            raise ModelNotFoundError(f"{model_id!r} is not a model id, which has 64 hexadecimal digits")
        around = self._around()
        return self.run(kind, model_id, lambda job: work(ModelDownload(around, job, model_id, patience_s)))

    def _around(self) -> Surroundings:
        return Surroundings(
            self._secure,
            self._registry,
            self._hosted,
            self._kernels,
            self._folder(),
            lambda peer_id, reason: self._ban(peer_id, reason, LIAR_BAN_S),
            self.computes_spans,
        )

    def _folder(self) -> Path:
        if self._models_dir is None:
            raise ConfigError("this node has no data directory to fetch models into: give one with --data-dir")
        with writing_to(self._models_dir):
            self._models_dir.mkdir(parents=True, exist_ok=True)
        return self._models_dir


def _pull(job: Job, reference: HubReference, models_dir: Path, name: str | None, hosted: HostedModels) -> StoredModel:
    def advance(progress: PullProgress) -> None:
        if job.stop.is_set():
            raise CancelledError("the pull was stopped; what was fetched is kept for the next time")
        job.total_bytes = max(progress.total_bytes, progress.done_bytes)
        job.advance(progress.done_bytes - job.done_bytes)

    library = Library(models_dir)
    imported = HubPull(reference, library, advance).run(name)
    stored = library.open(imported.model_id)
    for ref in stored.units:
        stored.unit(ref.layer, ref.kind)
    hosted.hold(stored, stored.units)
    return stored


def _main(job: Job, work: Callable[[Job], object]) -> None:
    try:
        work(job)
    except CancelledError as exc:
        job.end(JobState.CANCELLED, str(exc))
    except KekahydeError as exc:
        log.warning("transfer of %s: %s", job.model, exc)
        job.end(JobState.FAILED, str(exc))
    except Exception:
        log.exception("transfer of %s", job.model)
        job.end(JobState.FAILED, "this node failed: its log says why")
    else:
        job.end(JobState.DONE)
    finally:
        give_back()  # fetched pieces have left much free memory
