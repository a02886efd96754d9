"""A conversation on the command line, and what is told of a fetch, with the program as it is typed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from test_model_checkpoints import write_checkpoint

from node.cli.progress import LINE_S, Lines, sources_words
from node.cli.turns import MAX_TURN_BYTES
from node.store.library import Library
from scripts.harness.swarm import PROGRAM, environment

TEMPLATE = "{% for m in messages %}[{{ m['role'][0] }}]{{ m['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model with a chat template and one without."""
    folder = tmp_path_factory.mktemp("turns")
    library = Library(folder / "data" / "models")
    sizes = {"max_position_embeddings": 512}
    library.import_folder(write_checkpoint(folder / "plain", sizes), "plain")
    chatty = write_checkpoint(folder / "chatty", sizes, seed=1)
    (chatty / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    library.import_folder(chatty, "chatty")
    return folder / "data"


def typed(data_dir: Path, stdin: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    command = [*PROGRAM, "run", "--json", "--privacy", "local", "--temperature", "0", "--max-tokens", "4"]
    command += ["--ignore-eos", "--data-dir", str(data_dir), *options]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, env=environment())


def prompt_tokens(done: subprocess.CompletedProcess[bytes]) -> list[int]:
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return [event["prompt_tokens"] for event in events if event["type"] == "receipt"]


def test_each_line_is_a_turn_and_the_model_reads_those_before_it(data_dir: Path) -> None:
    done = typed(data_dir, b"Hello\n\nHow are you?\n/clear\nHello\n/bye\nnever\n", "--model", "chatty")
    assert done.returncode == 0, done.stderr
    first, second, third = prompt_tokens(done)
    assert first == third == len("[u]Hello"), "the tokenizer is one of bytes"
    assert second >= first + len("[a][u]How are you?"), "the answer is read too"
    again = typed(data_dir, b"Hello", "--model", "chatty", "--seed", "1")
    assert prompt_tokens(again) == [first], "the last line needs no end"


def test_a_conversation_by_a_node_that_runs_is_the_same(data_dir: Path, tmp_path: Path) -> None:
    lines = b"Hello\nHow are you?\n"
    alone = typed(data_dir, lines, "--model", "chatty", "--seed", "5")
    command = [*PROGRAM, "--headless", "--json", "--no-gateway", "--listen", "none", "--model", "chatty"]
    node = subprocess.Popen(
        [*command, "--data-dir", str(data_dir)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
    )
    with node:
        assert node.stdout is not None and node.stdout.readline()
        by_node = typed(data_dir, lines, "--model", "chatty", "--seed", "5")
        node.terminate()
    tokens = [
        [event["id"] for line in done.stdout.splitlines() if (event := json.loads(line))["type"] == "token"]
        for done in (alone, by_node)
    ]
    assert by_node.returncode == 0 and tokens[0] == tokens[1] and len(tokens[0]) == 8, by_node.stderr


@pytest.mark.parametrize(
    ("model", "stdin", "words"),
    [
        ("chatty", b"\xff\n", b"not UTF-8"),
        ("chatty", b"a" * (MAX_TURN_BYTES + 2), b"give a shorter one"),
        ("chatty", b"a" * 600 + b"\n", b"512"),
    ],
)
def test_what_cannot_be_answered_ends_it_with_one_line(
    data_dir: Path, model: str, stdin: bytes, words: bytes
) -> None:
    done = typed(data_dir, stdin, "--model", model)
    assert done.returncode == 1 and words in done.stderr and not done.stdout
    assert done.stderr.count(b"\n") == 1


def test_a_model_that_cannot_chat_needs_a_prompt(data_dir: Path) -> None:
    done = typed(data_dir, b"Hello\n", "--model", "plain")
    assert done.returncode == 2 and b"give a PROMPT" in done.stderr and not done.stdout


def test_a_fetch_says_a_line_a_step_and_one_now_and_then_with_rate_and_time_left() -> None:
    said: list[str] = []
    now = 0.0
    lines = Lines(said.append, lambda: now)
    lines(0, 0, sources_words(0))
    lines(1 << 20, 10 << 20, sources_words(2))
    now = 1.0
    lines(2 << 20, 10 << 20, sources_words(2))
    now = LINE_S + 0.0
    lines(6 << 20, 10 << 20, sources_words(2))
    now = LINE_S + 1.0
    lines(10 << 20, 10 << 20, "done")
    assert said == [
        "looking for peers that hold it",
        "from 2 peers: 1.0 of 10.0 MiB are here",
        "from 2 peers: 6.0 of 10.0 MiB are here, 1.0 MiB/s, 4 s left",
        "done: 10.0 of 10.0 MiB are here",
    ]
