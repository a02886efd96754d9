"""One session of the audit: ask, read the taps, attack, and look for what must not be there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct

from node.audit.attacks import (
    MOST,
    NEAREST,
    NEARLY_ALL,
    REUSE,
    Knowledge,
    attack,
    control,
    inversion,
    inversions,
    plain_rows,
)
from node.audit.client import Asked, Client, NotAuditedError, Recording, Settings
from node.audit.distinguisher import Pair
from node.audit.findings import Finding, Kind, Section, at_least, no_more
from node.audit.inversion import FirstRows, Matcher
from node.audit.recovery import recovered
from node.audit.reuse import first_elements, pairs_of
from node.audit.tap import Tapped, read_tap, shared_sessions
from node.audit.truth import Place
from node.audit.views import View, joined, pads_of, shares_of
from node.audit.workers import Workers
from node.kernels.interface import Kernels
from node.model.config import UnitKind
from node.model.unit import UnitRef
from node.planning.placement import PLACEMENTS, Lend
from node.privacy import Privacy
from node.store.stored import StoredModel
from protocol.linear.field import Elements

DEPTHS: Sequence[tuple[str, UnitKind]] = (
    ("first layer", "gate_up"),
    ("middle layer", "down"),
    ("last layer", "gate_up"),
)
"""Where the vocabulary is matched, and the kind of unit there; all placements lend these kinds."""
HEAD = "head"
HELD = 0.98
"""Share of the rows sent that must be in the taps. A request that is cancelled is not always opened."""
OPENING_LIMIT_S = 10.0
OPENING_PAUSE_S = 0.1
FORMS = "allowed messages only"
CROSSED = "rows of other lanes"
WITHOUT_DEVICE = "rows recovered without the device"
EVERYBODY = "rows recovered by everybody"
LANE = "rows recovered by a lane"


class Scenario(Struct, frozen=True):
    """A session to be audited."""

    mode: str
    settings: Settings
    paired: bool = False
    """Whether the first worker is a device of the same owner, which makes the pads."""

    @property
    def name(self) -> str:
        guesses = f", {self.settings.speculate} rows a pass" if self.settings.speculate else ""
        guesses += " by a draft" if self.settings.drafts else ""
        ahead = ", pads made ahead" if self.settings.pads_ahead else ""
        return f"{self.mode}, {self.settings.lend.value}{guesses}{ahead}"


class Effort(Struct, frozen=True):
    """How much is asked and tried."""

    prompts: tuple[str, str]
    max_tokens: int
    places: int
    """Tokens of each text whose vocabulary is matched."""
    decoys: int
    with_head: bool = False
    """Whether a session lends the head."""


class Peers(Struct, frozen=True):
    """What each worker has seen, in the order of their places."""

    taps: Sequence[Tapped]
    pads: Sequence[View]
    shares: Sequence[View]


class Scenes:
    """Audits sessions of one model. What does not depend on the session is computed once."""

    def __init__(self, model: StoredModel, kernels: Kernels, effort: Effort, seed: int = 1) -> None:
        self._model, self._kernels, self._effort = model, kernels, effort
        self._units = {ref.sha256: ref for ref in model.units}
        self._first = next(ref for ref in model.units if ref.layer == 0 and ref.kind == "qkv")
        self._table = FirstRows(model, kernels, self._first)
        self._matcher = Matcher(model, kernels, list(self._depths(effort.with_head).values()), effort.decoys)
        self._generator = np.random.default_rng(seed)
        self._heads: list[Elements] = []
        """The first elements of all shares of all sessions."""

    def run(self, scenario: Scenario, workers: Workers, client: Client) -> Section:
        """Ask each prompt twice, and attack what the workers got.

        Raises:
            NotAuditedError: the session was not the one that was to be audited.
        """
        tokenizer, effort = self._model.tokenizer(), self._effort
        prompts = [tokenizer.encode(prompt) for prompt in (*effort.prompts, *effort.prompts)]
        workers.cut()
        recording = client.ask(scenario.settings, prompts, effort.max_tokens)
        if scenario.paired and not recording.asked[0].receipt.pads_paired:
            raise NotAuditedError("the paired device made no pads")
        secrets = [prompt.encode() for prompt in effort.prompts]
        taps = opened_taps(workers, recording, secrets)
        peers = Peers(
            taps,
            [View(f"pads {i}", pads_of(tapped, self._units, recording.sent)) for i, tapped in enumerate(taps)],
            [View(f"shares {i}", shares_of(tapped, self._units, recording.sent)) for i, tapped in enumerate(taps)],
        )
        known = self._knowledge(scenario, recording)
        self._heads.append(first_elements(joined("", peers.shares)))
        findings = [
            *self._record(recording, peers),
            *attack(*_views(peers), known),
            *_together(scenario, peers, known),
            *control(plain_rows(joined("plain", peers.shares), known), known, "plain rows"),
        ]
        return Section(self._model.name, scenario.name, findings)

    def together(self) -> Section:
        """What all peers of all sessions see together: whether a pad of one session hides a row in another."""
        found = pairs_of(np.concatenate(self._heads))
        seen = f"{found.near + found.opposite} of {found.compared}"
        finding = no_more(REUSE, int(found.found), seen, found.as_json())
        return Section(self._model.name, "all sessions together", [finding])

    def _knowledge(self, scenario: Scenario, recording: Recording) -> Knowledge:
        lends_head = PLACEMENTS[scenario.settings.lend].of("head") == "lent"
        candidates = {
            Place(asked.number, position): self._matcher.at(asked.token_ids, position)
            for asked in recording.asked
            for position in self._positions(asked)
        }
        return Knowledge(
            self._first,
            self._table,
            self._depths(lends_head),
            candidates,
            {asked.number: asked.token_ids for asked in recording.asked},
            Pair((0, 2), (1, 3)),
            recording.sent,
            self._generator,
        )

    def _depths(self, with_head: bool) -> dict[str, UnitRef]:
        last = self._model.config.num_layers - 1
        by_place = {(ref.layer, ref.kind): ref for ref in self._model.units}
        layers = zip((0, last // 2, last), DEPTHS, strict=True)
        depths = {f"vocabulary, {name}": by_place[layer, kind] for layer, (name, kind) in layers}
        return depths | ({f"vocabulary, {HEAD}": by_place[None, "head"]} if with_head else {})

    def _positions(self, asked: Asked) -> list[int]:
        """Some of the prompt, from its second token on, and some of the answer."""
        half = max(1, self._effort.places // 2)
        prompt = np.linspace(1, asked.num_prompt - 1, half)
        answer = np.linspace(asked.num_prompt, len(asked.token_ids) - 1, half)
        return sorted({int(position) for position in (*prompt, *answer)})

    def _record(self, recording: Recording, peers: Peers) -> list[Finding]:
        """Whether the taps hold all that was sent and nothing else, and whether all of it is of the allowed form."""
        sent = recording.sent
        wrong = [problem for tapped in peers.taps for problem in tapped.wrong]
        if shared_sessions(peers.taps):
            wrong.append("one session id at two peers")
        guesses = recording.settings.speculate
        shares = [share for tapped in peers.taps for share in tapped.shares]
        seen, held = sum(len(share.rows) for share in shares), _rows_held(peers.taps, recording)
        missed = seen - held
        num_bytes = sum(tapped.num_bytes for tapped in peers.taps)
        figures = {"rows": seen, "bytes": num_bytes, "rows_of_tokens": sent.num_known}
        return [
            no_more(FORMS, len(wrong), "; ".join(sorted(set(wrong))) or "yes", {"problems": wrong}),
            at_least("rows sent that the taps hold", min(1.0, held / max(sent.num_rows, 1)), HELD, figures),
            no_more("rows tapped that nobody sent", missed, f"{missed} of {seen}"),
            *([] if guesses else [at_least("true rows that are those of a token", sent.explained, 1.0)]),
        ]


def opened_taps(workers: Workers, recording: Recording, secrets: Sequence[bytes] = ()) -> list[Tapped]:
    """What each worker has received, once that is all that was sent: on a busy machine it opens messages late."""
    deadline, records = time.monotonic() + OPENING_LIMIT_S, workers.cut()
    while True:
        taps = [read_tap(of_worker, secrets) for of_worker in records.values()]
        if _rows_held(taps, recording) >= recording.sent.num_rows or time.monotonic() > deadline:
            return taps
        time.sleep(OPENING_PAUSE_S)
        for peer_id, more in workers.cut().items():
            records[peer_id] += more


def _rows_held(taps: Sequence[Tapped], recording: Recording) -> int:
    """Rows that were sent and are in a tap."""
    shares = [share for tapped in taps for share in tapped.shares]
    return sum(len(share.rows) - recording.sent.missed(share.binding.unit, share.rows) for share in shares)


def _views(peers: Peers) -> tuple[list[View], list[View]]:
    """What each peer has seen alone, and what those of one role have seen together."""
    roles = [joined("all pads", peers.pads), joined("all shares", peers.shares)]
    return [*peers.pads, *peers.shares], roles


def _together(scenario: Scenario, peers: Peers, known: Knowledge) -> list[Finding]:
    """What peers of both roles recover: nothing unless both guards of a lane, or a paired device, are among them."""
    everybody = joined("", peers.shares)
    num_known = _num_known(everybody)
    if scenario.paired:
        makers, others = joined("", peers.pads[:1]), joined("", peers.pads[1:])
        alone = recovered("", others, everybody).num_rows
        found = [no_more(WITHOUT_DEVICE, alone, f"{alone} of {num_known}")]
        num_known = _num_known(makers)  # while the device was late, the client made pads itself
        return [*found, *_pooled("the device and all peers", recovered("", makers, everybody), num_known, known)]
    if scenario.settings.privacy is Privacy.STRICT:
        count = recovered("", joined("", peers.pads), everybody).num_rows
        return [no_more(EVERYBODY, count, f"{count} of {num_known}")]
    lanes = list(zip(peers.pads[::2], peers.shares[1::2], strict=True))
    crossed = sum(
        recovered("", pads, shares).num_rows
        for one, (pads, _own) in enumerate(lanes)
        for other, (_pads, shares) in enumerate(lanes)
        if one != other
    )
    own = joined("", [recovered("", pads, shares) for pads, shares in lanes])
    count = _num_known(recovered("", joined("", peers.pads), everybody))
    told = Finding(Kind.FIGURE, EVERYBODY, f"{count} of {num_known}", figures={"rows": count})
    return [no_more(CROSSED, crossed, f"{crossed} of {num_known}"), told, *_pooled(LANE, own, num_known, known)]


def _pooled(name: str, rows: View, num_known: int, known: Knowledge) -> list[Finding]:
    """The control: those who hold pads and shares have the rows, and the rows have the tokens."""
    have = _num_known(rows)
    found = [at_least(name, have / max(num_known, 1), NEARLY_ALL, {"rows": have})]
    for what in inversions(known):
        ranks = inversion(rows, what, known)
        if ranks is not None:
            least = NEARLY_ALL if what == NEAREST else MOST
            found.append(at_least(f"{what}, {name}", ranks.share, least, ranks.as_json()))
    return found


def _num_known(view: View) -> int:
    """Rows of tokens of the texts."""
    return sum(place is not None for rows in view.rows for place in rows.places)


def scenarios(is_long: bool) -> list[Scenario]:
    """The sessions of the short and of the long form."""
    modes = (
        ("split", Privacy.SPLIT, False),
        ("strict", Privacy.STRICT, False),
        ("strict, paired", Privacy.STRICT, True),
    )
    lends = (Lend.FFN, Lend.LAYERS, Lend.ALL) if is_long else (Lend.LAYERS,)
    guesses = (0, 8) if is_long else (0,)
    more = [
        Scenario("split", Settings(Privacy.SPLIT, Lend.LAYERS, 8, drafts=True)),
        Scenario("strict", Settings(Privacy.STRICT, Lend.LAYERS, 0, pads_ahead=True)),
    ]
    sessions = [
        Scenario(mode, Settings(privacy, lend, speculate), paired)
        for mode, privacy, paired in modes
        for lend in lends
        for speculate in guesses
    ]
    return sessions + more if is_long else sessions


def by_client(chosen: Sequence[Scenario]) -> Mapping[bool, Sequence[Scenario]]:
    """The scenarios without and with a paired device: each group has its client."""
    groups = {paired: [scenario for scenario in chosen if scenario.paired is paired] for paired in (False, True)}
    return {paired: group for paired, group in groups.items() if group}
