"""Runs the audit of one model: workers, clients, sessions, questions about metadata."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from node.audit.client import Client
from node.audit.findings import Section
from node.audit.metadata import PAD_OUTPUT, audit_metadata
from node.audit.scenario import Effort, Scenes, by_client, scenarios
from node.audit.workers import Workers
from node.kernels import select_kernels
from node.store.library import Library
from node.store.stored import StoredModel

NUM_WORKERS = 4
PROMPTS = (
    "Once upon a time there was a secret that nobody else may read",
    "The doctor wrote a letter to the bank about the money of Lily",
)
SHORT = Effort(PROMPTS, max_tokens=8, places=4, decoys=256)
LONG = Effort(PROMPTS, max_tokens=12, places=8, decoys=1024, with_head=True)
SMALL_VOCABULARY = 4096
"""Up to so many tokens the long form tries the whole vocabulary."""


def audit_model(
    model: StoredModel,
    library: Library,
    is_long: bool,
    with_metadata: bool,
    threads: int | None,
    on_section: Callable[[Section], None],
) -> None:
    """Audit sessions of one model, one after the other; `on_section` is called after each.

    Args:
        is_long: whether every placement is audited, with and without guesses.
        with_metadata: whether to ask some 100 more texts, to see what metadata tells.

    Raises:
        NotAuditedError: a session did not run as planned.
        WorkerError: a worker did not start, or has ended.
    """
    with Workers(NUM_WORKERS, model) as workers:
        scenes = Scenes(model, select_kernels(threads), effort_for(model, is_long))
        for paired, group in by_client(scenarios(is_long)).items():
            with Client(workers, model, library, threads, workers.all[0] if paired else None) as client:
                for scenario in group:
                    on_section(scenes.run(scenario, workers, client))
                for pad_output in (0, PAD_OUTPUT) if with_metadata and not paired else ():
                    on_section(audit_metadata(model, workers, client, pad_output))
        on_section(scenes.together())


def effort_for(model: StoredModel, is_long: bool) -> Effort:
    """How much is tried with a model."""
    if is_long and model.config.vocab_size <= SMALL_VOCABULARY:
        return replace(LONG, decoys=model.config.vocab_size)
    return LONG if is_long else SHORT
