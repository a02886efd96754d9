"""`run`: answer a prompt with a full node in this process, stream the tokens, and print the receipt."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any, NoReturn

import click
from msgspec import Struct

from node.cli.narrate import configure_logging, say
from node.cli.on_node import answer_of_node, node_does_it
from node.cli.options import (
    EXIT_CODES,
    data_dir_option,
    draft_option,
    json_option,
    lend_option,
    model_option,
    network_options,
    pad_output_option,
    recheck_option,
    speculate_option,
    swarm_options,
    thin_option,
    threads_option,
    verbose_option,
)
from node.cli.progress import progress_shown, sources_words
from node.cli.reading import Asked, Reading
from node.cli.thin import library_of
from node.cli.turns import converse
from node.cli.waiting import WaitingLine
from node.cli.wanted import absent_id, meant
from node.config import NodeConfig
from node.engine import Engine
from node.engine.request import Completed, Event, Note, Started, Token
from node.errors import ModelNotFoundError, PeerRefusedError, PromptError, UnfinishedError
from node.execution.config import ExecutionConfig
from node.execution.lane import DEFAULT_MAX_LANES
from node.model.config import UnitKind
from node.model.sampling import SamplingParams
from node.node import Node
from node.paths import DataDir
from node.planning.placement import Lend, kinds_not_kept
from node.privacy import Privacy
from node.process.memory import share_one_arena
from node.session.config import SessionConfig
from node.store.library import Library
from node.store.stored import StoredModel
from node.swarm.access import AccessList
from node.swarm.credentials import Swarm, known_addresses, load_swarm
from node.swarm.device_names import DeviceNames
from node.transfer.jobs import JobState
from node.transport.registry import DialState
from node.trust import PairedDevices
from protocol.identity import Identity
from protocol.multiaddr import Multiaddr

MAX_PROMPT_CHARACTERS = 1 << 20
BRING_POLL_S = 0.2
"""Interval at which the wait for a model checks for signals."""
MAX_PAD_ROWS = 1 << 16


class RunOptions(Struct, frozen=True):
    """What the options of `run` say about the answer and about the node that computes it."""

    privacy: Privacy
    lend: Lend
    speculate: int | None
    draft: str | None
    pad_output: int
    recheck: float
    thin: bool
    chat: bool
    sampling: dict[str, Any]
    """Values by field of SamplingParams; None or empty means the model's own value."""
    listen: Multiaddr | None
    bootstrap: tuple[Multiaddr, ...]
    swarm_key: Path | None
    is_open: bool
    min_peers: int
    peer_timeout: float
    lanes: int
    pad_rows: int
    deadline: float
    threads: int | None

    @classmethod
    def of(cls, given: dict[str, Any]) -> RunOptions:
        """The options as click gives them; those that are not fields of this class are about sampling."""
        own = set(cls.__struct_fields__) - {"sampling"}
        known = {name: value for name, value in given.items() if name in own}
        sampling = {name: value for name, value in given.items() if name not in own}
        modes = {"privacy": Privacy(given["privacy"]), "lend": Lend(given["lend"])}
        return cls(**{**known, **modes}, sampling=sampling)

    @property
    def enough_peers(self) -> int:
        """If at least so many peers are usable, a peer that refuses is not an error."""
        return 2 if self.privacy in (Privacy.AUTO, Privacy.SPLIT) else 1

    def sessions(self) -> SessionConfig:
        """How sessions are formed. If the user named no peers, this device uses its own guards."""
        return SessionConfig(
            max_lanes=self.lanes,
            by_guards=not self.bootstrap and not self.min_peers,
            inbound_peers=self.min_peers > 0,
            pad_rows=self.pad_rows,
            execution=ExecutionConfig(progress_limit_s=self.deadline),
            recheck=self.recheck,
        )


@click.command(epilog=EXIT_CODES)
@click.argument("prompt", required=False)
@json_option
@data_dir_option
@model_option
@click.option(
    "--privacy",
    type=click.Choice([mode.value for mode in Privacy]),
    default=Privacy.AUTO.value,
    show_default=True,
    help="auto: split (in an open swarm strict) if peers make it faster, trusted if devices do that may read your "
    "prompts, else local. A run never uses a weaker mode than asked for.",
)
@lend_option
@speculate_option
@draft_option
@pad_output_option
@recheck_option
@thin_option
@network_options
@swarm_options
@click.option(
    "--min-peers", type=click.IntRange(0), default=0, help="Wait for so many peers, and also use peers that dial in."
)
@click.option(
    "--peer-timeout", type=click.FloatRange(0), default=5.0, show_default=True, help="Seconds to wait for peers."
)
@click.option(
    "--lanes",
    type=click.IntRange(1, 64),
    default=DEFAULT_MAX_LANES,
    show_default=True,
    help="split: the maximum number of lanes, two peers each. strict uses every peer.",
)
@click.option(
    "--pad-rows",
    type=click.IntRange(0, MAX_PAD_ROWS),
    default=0,
    help="strict: rows of pads to make before the answer begins.",
)
@click.option("--ignore-eos", is_flag=True, help="Continue after the end-of-text token.")
@click.option("--max-tokens", type=click.IntRange(1), default=None, help="Maximum number of tokens.")
@click.option("--temperature", type=float, default=None, help="0 is greedy.")
@click.option("--top-k", type=int, default=None, help="Choose only among the K likeliest tokens; 0: all.")
@click.option(
    "--top-p",
    type=float,
    default=None,
    help="Choose only among the likeliest tokens that together have this probability.",
)
@click.option(
    "--min-p", type=float, default=None, help="Choose only tokens at least this likely, relative to the likeliest."
)
@click.option("--repetition-penalty", type=float, default=None, help="Values above 1 make repetitions less likely.")
@click.option("--stop", multiple=True, help="End the text before this string. May be given several times.")
@click.option(
    "--stop-token-id",
    "stop_token_ids",
    type=click.IntRange(0),
    multiple=True,
    help="End the text at the token with this id. May be given several times.",
)
@click.option("--seed", type=int, default=None, help="The same seed gives the same text.")
@click.option(
    "--deadline",
    type=click.FloatRange(0.05),
    default=30.0,
    show_default=True,
    help="Give up after so many seconds without progress.",
)
@click.option("--chat", is_flag=True, help="Send the prompt as a chat message, with the model's chat template.")
@threads_option
@verbose_option
def run(prompt: str | None, as_json: bool, data_dir: Path, model: str, verbose: int, **given: Any) -> None:
    """Answer PROMPT (`-` reads it from stdin) and stream the text.

    Without PROMPT it is a chat: each line of stdin is a turn, and the model reads the turns before it.

    If a node runs on the data directory, it answers, with the peers that it knows. If none runs, or if an option
    configures a node (--listen, --bootstrap, --swarm-key, --open, --min-peers, --peer-timeout, --lanes, --pad-rows,
    --recheck, --deadline, --threads), a node is started only for this run.
    """
    configure_logging(verbose)
    share_one_arena()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    options = RunOptions.of(given)
    directory = DataDir.open(data_dir)
    swarm = load_swarm(directory.path, os.environ, options.swarm_key, options.is_open)
    lent = kinds_not_kept(options.thin, options.lend)
    library, text = library_of(directory, lent), None if prompt is None else _read_prompt(prompt)
    by_node = node_does_it(directory.path)
    model = meant(library, model, swarm)
    absent = absent_id(library, model)
    if absent is not None and by_node:
        from node.cli.pull import from_peers  # HTTP: only where a node runs

        say(f"fetching model {absent[:16]} from peers")
        with progress_shown() as on_bytes:
            from_peers(directory, absent, on_bytes, options.thin, options.lend)
        model, absent = absent, None
    stored = None if absent is not None else library.resolve(model)
    if options.thin and stored is not None and stored.is_whole:
        say(f"note: all of {stored.name} is already here: --thin does not remove any of it")
    draft = None if options.draft is None else library.resolve(options.draft)
    reading = None if stored is None else _reading(stored, draft, options)
    if reading is not None:
        reading.check(text)
    if by_node and reading is not None:
        for_node = reading.for_node
        _answer(text, reading, lambda asked: answer_of_node(directory.path, for_node(asked)), as_json)
        return
    bootstrap = options.bootstrap or known_addresses(swarm, directory.path)
    identity, lock = _identity(directory)
    config = _config(directory, swarm, bootstrap, options, identity, lock is not None)
    with lock or nullcontext(), Node(config, [] if stored is None else [stored]) as node:
        if options.privacy is not Privacy.LOCAL or stored is None:
            _wait_for_peers(node, bootstrap, options)
        if reading is None:
            reading = _reading(_bring(node, library, str(absent), lent), draft, options)
            reading.check(text)
        with Engine(node, library, options.sessions()) as engine:
            _answer(text, reading, lambda asked: engine.ask(reading.request(asked)), as_json)


def _config(
    directory: DataDir,
    swarm: Swarm,
    bootstrap: tuple[Multiaddr, ...],
    options: RunOptions,
    identity: Identity,
    is_ours: bool,
) -> NodeConfig:
    """The configuration of this run's node.

    Args:
        is_ours: whether the data directory is locked for this run: else it reads from it, and writes nothing.
    """
    if not is_ours and options.privacy is Privacy.TRUSTED:
        say(f"note: only the node that runs on {directory.path} is paired, not this run: use that node's gateway")
    return NodeConfig(
        identity,
        options.listen,
        bootstrap,
        options.threads,
        directory.models,
        swarm_key=swarm.key,
        access=AccessList(directory.path / "access.json", time.time),
        paired=PairedDevices(identity, directory.path if is_ours else None),
        guards_path=directory.guards if is_ours else None,
        measures_path=directory.measures if is_ours else None,
        names=(names := DeviceNames(directory.names)),
        name=names.of(identity.peer_id),
    )


def _reading(model: StoredModel, draft: StoredModel | None, options: RunOptions) -> Reading:
    params = _sampling_params(model, options.sampling)
    return Reading(
        model, params, options.privacy, options.lend, options.chat, options.speculate, draft, options.pad_output
    )


def _answer(text: str | None, reading: Reading, ask: Callable[[Asked], Iterator[Event]], as_json: bool) -> None:
    """Show the answer to one prompt, or to one line of stdin after the other."""
    if text is None:
        converse(lambda messages: _show(ask(messages), as_json))
    else:
        _show(ask(reading.of(text)), as_json)


def _bring(node: Node, library: Library, model_id: str, lent: Collection[UnitKind]) -> StoredModel:
    """Fetch a model that is not here from peers: its tokenizer, float part and units, verified by its id.

    Args:
        lent: kinds of units of which only the checks are kept.
    """
    say(f"fetching model {model_id[:16]} from peers")
    job = node.transfers.pull(model_id, lent)
    try:
        with progress_shown() as on_bytes:
            while not job.ended.wait(BRING_POLL_S):
                on_bytes(job.done_bytes, job.total_bytes, sources_words(job.sources))
    except KeyboardInterrupt:
        job.stop.set()
        raise
    if job.state is not JobState.DONE:
        raise ModelNotFoundError(job.error or f"model {model_id} could not be fetched: try again")
    say(f"fetched {job.fetched_bytes / 2**20:.1f} MiB")
    return library.open(model_id)


def _interrupt(*_signal: object) -> NoReturn:
    raise KeyboardInterrupt


def _identity(directory: DataDir) -> tuple[Identity, IO[bytes] | None]:
    """The data directory's identity and its lock; if another process uses it, an identity for this run only."""
    lock = directory.lock()
    return (Identity.from_seed(secrets.token_bytes(32)) if lock is None else directory.identity()), lock


def _read_prompt(prompt: str) -> str:
    text = _read_stdin() if prompt == "-" else prompt
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise PromptError("the prompt is not UTF-8 text: convert it first, or set a UTF-8 locale")
    if not text.strip():
        raise PromptError("the prompt is empty: give some text, or - and text on stdin")
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise PromptError(f"the prompt has more than {MAX_PROMPT_CHARACTERS} characters: give a shorter one")
    return text


def _read_stdin() -> str:
    """What is piped in, read as UTF-8 whatever the locale says; at most a little more than the longest prompt."""
    content = sys.stdin.buffer.read(4 * MAX_PROMPT_CHARACTERS + 4)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise PromptError(f"stdin is not UTF-8 text (byte {exc.start}): convert it first") from exc


def _sampling_params(model: StoredModel, given: dict[str, Any]) -> SamplingParams:
    overrides = {name: value for name, value in given.items() if value is not None and value != ()}
    if given["seed"] is None:
        overrides["seed"] = secrets.randbits(32)
    try:
        return SamplingParams.from_generation_config(model.generation_config, **overrides)
    except PromptError as exc:
        raise click.UsageError(str(exc)) from exc


def _wait_for_peers(node: Node, bootstrap: Sequence[Multiaddr], options: RunOptions) -> None:
    """Wait for the peers; a peer that refuses us is an error only if too few remain without it."""
    node.registry.wait_settled([str(address) for address in bootstrap], options.min_peers, options.peer_timeout)
    failed = [outcome for outcome in node.registry.outcomes() if outcome.state is not DialState.UP]
    for outcome in failed:
        if outcome.state is DialState.REFUSED and len(node.registry.usable()) < options.enough_peers:
            raise PeerRefusedError(outcome.reason)
        say(f"note: {outcome.reason}")


def _show(events: Iterator[Event], as_json: bool) -> str:
    """Print tokens on stdout as they come, notes on stderr, and the receipt last; returns the text."""
    shown = []
    with WaitingLine() as waiting:
        for event in events:
            waiting.hear(event)
            if isinstance(event, Token):
                shown.append(event.text)
            match event:
                case Started(mode, _model, plan) if mode != Privacy.LOCAL.value:
                    say(plan)
                case Note(text):
                    say(f"note: {text}")
                case Token(index, token_id, text) if as_json:
                    _print_line({"type": "token", "index": index, "id": token_id, "text": text})
                case Token(text=text):
                    click.echo(text, nl=False)
                    sys.stdout.flush()
                case Completed(receipt):
                    if as_json:
                        _print_line(receipt.as_json())
                    else:
                        click.echo()
                        say(receipt.as_line())
                    if receipt.finish_reason == "error":
                        raise UnfinishedError("the answer is incomplete: the last note above says why")
    return "".join(shown)


def _print_line(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()
