"""The short form of `kekahyde-node audit`: real workers, tapped and attacked; and a client whose pads are bad."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import node.cli.audit as command
from node.audit.attacks import NEAREST, REUSE, UNIFORM
from node.audit.audit import NUM_WORKERS, PROMPTS
from node.audit.client import Client, NotAuditedError, Settings
from node.audit.findings import Finding, Kind, Section
from node.audit.report import as_json, failures
from node.audit.scenario import FORMS, LANE, Effort, Scenario, Scenes, opened_taps
from node.audit.tap import Record, read_tap
from node.audit.workers import WorkerError, Workers
from node.errors import KekahydeError
from node.execution.pads import own
from node.kernels import select_kernels
from node.planning.placement import Lend
from node.privacy import Privacy
from node.store.library import Library
from node.store.stored import StoredModel
from protocol.codec import encode_message
from protocol.linear.field import Elements
from protocol.linear.messages import ChunkBinding, Linear, Role
from protocol.transfer.messages import BlobAsk

pytestmark = pytest.mark.swarm

UNITS = 24
"""Of the built-in model, the head apart."""
QUICK = Effort(PROMPTS, max_tokens=3, places=2, decoys=31)
STRICT = Settings(Privacy.STRICT, Lend.LAYERS, 0)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def model(library: Library) -> StoredModel:
    return library.resolve("story")


@pytest.fixture(scope="module")
def workers(model: StoredModel) -> Iterator[Workers]:
    with Workers(NUM_WORKERS, model) as workers:
        yield workers


@pytest.fixture(scope="module")
def client(workers: Workers, model: StoredModel, library: Library) -> Iterator[Client]:
    with Client(workers, model, library, 1) as client:
        yield client


@pytest.fixture(scope="module")
def scenes(model: StoredModel) -> Scenes:
    return Scenes(model, select_kernels(1), QUICK)


@pytest.fixture(scope="module")
def split(scenes: Scenes, workers: Workers, client: Client) -> Section:
    return scenes.run(Scenario("split", Settings(Privacy.SPLIT, Lend.FFN, 8)), workers, client)


def test_split_shows_guards_nothing_and_a_lane_everything(split: Section) -> None:
    assert failures([split]) == []
    lane = split.finding(LANE)
    assert lane is not None and lane.kind is Kind.CONTROL and lane.seen == "100 %"
    assert sum(finding.kind is Kind.CLAIM for finding in split.findings) > 6


def test_strict_with_a_paired_device(scenes: Scenes, workers: Workers, model: StoredModel, library: Library) -> None:
    with Client(workers, model, library, 1, paired=workers.all[0]) as client:
        section = scenes.run(Scenario("strict, paired", STRICT, paired=True), workers, client)
    assert failures([section]) == []
    pooled = section.finding("the device and all peers")
    assert pooled is not None and pooled.holds, "pads and shares together are the rows"


@pytest.mark.long
@pytest.mark.parametrize(
    "scenario",
    [
        Scenario("strict", Settings(Privacy.STRICT, Lend.LAYERS, 0, pads_ahead=True)),
        Scenario("split", Settings(Privacy.SPLIT, Lend.LAYERS, 8, drafts=True)),
    ],
    ids=["pads made ahead", "guesses of a draft"],
)
def test_pads_made_ahead_and_guesses_of_a_draft(
    scenes: Scenes, workers: Workers, client: Client, scenario: Scenario
) -> None:
    section = scenes.run(scenario, workers, client)
    assert failures([section]) == []


@pytest.mark.long
def test_narrow_pads_are_found_in_a_real_session(
    scenes: Scenes, workers: Workers, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = own.pad_rows

    def narrow(seed: bytes, start: int, end: int, width: int) -> Elements:
        return honest(seed, start, end, width) & np.uint32(0xFFF)

    monkeypatch.setattr(own, "pad_rows", narrow)
    section = scenes.run(Scenario("strict", STRICT), workers, client)
    assert {NEAREST, UNIFORM, REUSE} <= {finding.what for finding in section.failed}
    assert all(finding.kind is Kind.CLAIM for finding in section.failed), "the controls are as good as ever"


@pytest.mark.parametrize("words", [17, 29])
def test_a_prompt_shows_its_bucket_and_no_more(
    workers: Workers, client: Client, model: StoredModel, words: int
) -> None:
    """Prompts of other lengths in one bucket: peers together get as many rows of each unit, 32."""
    prompt = model.tokenizer().encode(" ".join((PROMPTS[0].split() * 3)[:words]))
    assert 16 < len(prompt) <= 32
    workers.cut()
    taps = opened_taps(workers, client.ask(STRICT, [prompt], 1))
    assert sum(len(share.rows) for tapped in taps for share in tapped.shares) == 32 * UNITS


def test_padded_answers_of_other_lengths_make_as_many_passes(
    workers: Workers, client: Client, model: StoredModel
) -> None:
    prompt, bucket = model.tokenizer().encode(PROMPTS[0]), 16
    for tokens, speculate, rows_a_pass in ((3, 0, 1), (6, 0, 1), (6, 4, 8)):
        settings = Settings(Privacy.STRICT, Lend.LAYERS, speculate, pad_output=8, to_the_end=True)
        workers.cut()
        recording = client.ask(settings, [prompt], tokens)
        receipt = recording.asked[0].receipt
        assert receipt.tokens == tokens and receipt.finish_reason == "length"
        shares = [share for tapped in opened_taps(workers, recording) for share in tapped.shares]
        assert sum(len(share.rows) for share in shares) == UNITS * (bucket + 8 * rows_a_pass)


def test_a_session_without_peers_is_not_audited(client: Client, model: StoredModel) -> None:
    with pytest.raises(NotAuditedError):
        client.ask(Settings(Privacy.LOCAL, Lend.LAYERS, 0), [model.tokenizer().encode("Hello")], 1)


def test_workers_leave_nothing_behind(model: StoredModel) -> None:
    with Workers(1, model) as workers:
        folder, process = workers.folder, workers.all[0]
        assert folder.stat().st_mode & 0o077 == 0 and process.cut() is not None
    assert not folder.exists()
    with pytest.raises(WorkerError):
        process.cut()


def test_a_worker_leaves_when_the_audit_is_killed(model: StoredModel, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from node.audit.workers import Workers\n"
        "from node.store.library import Library\n"
        "model = Library(Path(sys.argv[1])).resolve('story')\n"
        "with Workers(1, model) as workers:\n"
        "    print(workers.all[0]._process.pid, workers.folder, flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(model.path.parent)]
    audit = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert audit.stdout is not None
    pid = int(audit.stdout.readline().split()[0])
    audit.kill()
    audit.wait()
    audit.stdout.close()
    from waiting import until

    until(
        lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes(), "it left"
    )


# --- what must not be in a tap


def record(message: object, plane: str = "data") -> Record:
    frames = [bytes(frame) for frame in encode_message(message, 7)]  # type: ignore[arg-type]
    return Record(plane, 1, frames)


def binding(role: Role, nonce: int, num_rows: int = 1) -> ChunkBinding:
    return ChunkBinding(bytes(16), nonce, bytes(32), bytes(32), role, 0, num_rows, 0, 1)


def test_a_tap_finds_what_must_not_be_in_it() -> None:
    def share(nonce: int, num_rows: int = 1) -> Record:
        rows = np.full((num_rows, 4), nonce, dtype=np.uint32)
        return record(Linear(binding(Role.SHARE, nonce, num_rows), rows=rows))

    seed = record(Linear(binding(Role.PAD, 9), seed=bytes(32)))
    again = record(Linear(binding(Role.PAD, 10), seed=bytes(32)))
    assert read_tap([share(1), share(2, 8)]).wrong == []
    assert read_tap([share(2), share(1)]).wrong == ["nonces that do not increase"]
    assert read_tap([share(1, 3)]).wrong == ["a chunk of 3 rows"]
    assert read_tap([seed, again]).wrong == ["a seed twice"]
    assert "seeds and shares at one peer" in read_tap([share(1), seed]).wrong
    assert read_tap([record(BlobAsk(bytes(32)))]).wrong == ["a BlobAsk on the data plane"]
    assert read_tap([Record("data", 1, [b"junk"])]).wrong == ["a message that cannot be read"]
    assert read_tap([Record("control", 1, [b"my secret"])], [b"secret"]).wrong[0] == "the prompt itself"


# --- the command


def run(monkeypatch: pytest.MonkeyPatch, sections: list[Section], *options: str) -> tuple[str, BaseException | None]:
    """The command, with the audit of the session above in place of a whole one."""
    monkeypatch.setattr(command, "audit_model", lambda *given: [given[-1](section) for section in sections])
    result = CliRunner().invoke(command.audit, list(options))
    return result.output, result.exception


def test_the_command_prints_a_table_and_writes_a_report(
    split: Section, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    told, error = run(monkeypatch, [split], "--data-dir", str(tmp_path), "--json", str(path))
    assert error is None and "story: split, ffn, 8 rows a pass" in told and "FAIL" not in told
    report = json.loads(path.read_text())
    assert report["holds"] is True and report["failures"] == [] and report == json.loads(json.dumps(as_json([split])))
    assert {finding["kind"] for finding in report["sections"][0]["findings"]} == {"claim", "control", "figure"}


def test_the_command_fails_where_a_claim_does_not_hold(
    split: Section, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = Finding(Kind.CLAIM, FORMS, "a seed twice", False)
    told, error = run(monkeypatch, [Section(split.model, split.name, [broken])], "--data-dir", str(tmp_path))
    assert isinstance(error, KekahydeError) and "FAIL" in told and "a seed twice" in told
