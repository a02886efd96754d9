"""What a whole session leaves anywhere holds no prompt, no answer and no key: each of them is looked for in all that
the processes wrote and showed, in every form in which bytes are written.

Only the files that exist to hold a secret may hold it, and nobody else may read them. Conversations that a user keeps
on the disk are such files too; this session keeps none.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from waiting import until

from node.gateway.client.client import call_node
from node.paths import DataDir
from node.store.library import Library
from protocol.identity import base58_encode
from scripts.harness.owner import pair
from scripts.harness.swarm import NodeProcess

pytestmark = pytest.mark.swarm

PROGRAM = [sys.executable, "-m", "node"]
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "KEKAHYDE_SWARM_KEY"}
PROMPT = "Zephyrine the walrus juggled quixotic marmalade"
RARE = ("Zephyrine", "walrus", "quixotic", "marmalade")
SECRET_FILES = {"identity.key", "swarm.key", "gateway.token", "paired.json", "seq", "anchors", "gateway-keys.json"}


def forms(secret: bytes) -> set[bytes]:
    """How bytes may be written: raw, hex, base 32, 58, 64, as a list of numbers, in Python's notation."""
    listed = ", ".join(map(str, secret))
    texts = {
        secret.hex(),
        secret.hex().upper(),
        base58_encode(secret),
        listed,
        listed.replace(" ", ""),
        repr(secret)[2:-1],
    }
    encoded = {base64.b32encode(secret), base64.b64encode(secret), base64.urlsafe_b64encode(secret)}
    return {secret, *(text.encode() for text in texts), *(text.rstrip(b"=") for text in encoded)}


@dataclass
class Leavings:
    """Everything that a session wrote and showed, by where it was found."""

    texts: dict[str, bytes] = field(default_factory=dict)

    def take(self, where: str, content: bytes | str) -> None:
        self.texts[where] = self.texts.get(where, b"") + (content.encode() if isinstance(content, str) else content)

    def take_files(self, folder: Path, public: frozenset[str]) -> None:
        """All files of a folder but those of public models."""
        for path in folder.rglob("*"):
            if path.is_file() and not public & set(path.parts):
                self.take(str(path.relative_to(folder.parent)), path.read_bytes())

    def take_processes(self, pids: list[int]) -> None:
        """What every user of the device may see of a process, and what its owner may."""
        for pid in pids:
            for name in ("cmdline", "environ", "comm", "status"):
                self.take(f"/proc/{pid}/{name}", Path(f"/proc/{pid}/{name}").read_bytes())

    def holding(self, needle: bytes, but: str = "") -> list[str]:
        """Where it is found, outside the file that is made for it."""
        return [where for where, text in self.texts.items() if needle in text and Path(where).name != but]


@contextmanager
def node(data_dir: Path) -> Iterator[NodeProcess]:
    """A node that says everything it can say."""
    data_dir.mkdir(exist_ok=True, mode=0o700)
    options = ["-vv", "--headless", "--json", "--no-mdns", "--threads", "1", "--listen", "/ip4/127.0.0.1/tcp/0"]
    with (data_dir / "stderr.txt").open("a") as narration:
        process = subprocess.Popen(
            [*PROGRAM, *options, "--data-dir", str(data_dir)],
            stdout=subprocess.PIPE,
            stderr=narration,
            text=True,
            env=ENVIRONMENT,
        )
    started = NodeProcess(process, data_dir)
    try:
        started.wait_ready()
        yield started
    finally:
        started.stop()


def command(leavings: Leavings, data_dir: Path, *words: str, given: str | None = None, keeps: bool = True) -> str:
    """A command of the program; what it says is what the user sees, and its stderr is looked through."""
    ended = subprocess.run(
        [*PROGRAM, *words, "--data-dir", str(data_dir)],
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        env=ENVIRONMENT,
    )
    assert ended.returncode == 0, ended.stderr
    leavings.take(f"stderr of {words[0]}", ended.stderr)
    if keeps:
        leavings.take(f"stdout of {' '.join(words)}", ended.stdout)
    return ended.stdout


def ask(gateway: str, path: str, key: str, body: dict[str, object] | None = None) -> bytes:
    """What the gateway answers to a program that has a key."""
    connection = http.client.HTTPConnection(gateway.removeprefix("http://"), timeout=120)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse().read()
    connection.close()
    return answer


def test_a_session_leaves_no_prompt_no_answer_and_no_key(tmp_path: Path) -> None:
    leavings, home, peer, other = Leavings(), tmp_path / "home", tmp_path / "peer", tmp_path / "other"
    answers: list[str] = []
    with ExitStack() as running:
        first = running.enter_context(node(home))
        line = command(leavings, home, "invite", "--no-qr", keeps=False).strip().splitlines()[-1]
        peers = []
        for folder in (peer, other):
            command(leavings, folder, "join", "-", given=line)
            peers.append(running.enter_context(node(folder)))
        key = command(leavings, home, "key", "add", "laptop", keeps=False).strip()
        pair(first, peers[0])
        until(lambda: len(call_node(home, "peers")["peers"]) == 2, "both are known")
        for mode in ("split", "trusted"):
            body = {
                "model": "story",
                "prompt": PROMPT,
                "max_tokens": 24,
                "privacy": mode,
                "seed": 3,
                "temperature": 1.5,
            }
            said = json.loads(ask(first.gateway, "/v1/completions", key, body))
            assert said["kekahyde"]["mode"] == mode, said
            answers.append(said["choices"][0]["text"])
        chat = {"model": "story", "messages": [{"role": "user", "content": PROMPT}], "n": "wrong", "max_tokens": 8}
        assert b"error" in ask(first.gateway, "/v1/chat/completions", key, chat)
        told = command(
            leavings,
            home,
            "run",
            "--json",
            "--privacy",
            "split",
            "--max-tokens",
            "24",
            "-",
            given=PROMPT,
            keeps=False,
        )
        answers.append(json.loads(told.splitlines()[-1])["text"])
        leavings.take("metrics", ask(first.gateway, "/metrics", key))
        for words in (("doctor", "--report"), ("doctor",), ("peers",), ("models",), ("key", "list"), ("id",)):
            command(leavings, home, *words)
        leavings.take_processes([one.process.pid for one in (first, *peers)])
    folders = (home, peer, other)
    story = Library(home / "models").resolve("story")
    for folder in folders:
        leavings.take_files(folder, frozenset({story.model_id}))
    look_through(leavings, folders, answers, story.tokenizer().encode(PROMPT), key, line)
    modes(folders)


def look_through(
    leavings: Leavings, folders: tuple[Path, ...], answers: list[str], tokens: list[int], key: str, line: str
) -> None:
    """Every secret of the session, in every form."""
    assert all(len(answer) > 20 for answer in answers)
    told = [
        PROMPT,
        *RARE,
        *(answer.strip()[:20] for answer in answers),
        *(answer.strip()[-20:] for answer in answers),
    ]
    for text in told:
        for form in (text.encode(), json.dumps(text)[1:-1].encode(), base64.b64encode(text.encode())[:-4]):
            assert leavings.holding(form) == [], f"{text!r} was found"
    ids = json.dumps(tokens[1:6])[1:-1]
    assert leavings.holding(ids.encode()) == [], "the tokens of the prompt were found"
    assert leavings.holding(key.encode()) == [] and leavings.holding(line.encode()) == []
    swarm = bytes.fromhex((folders[0] / "swarm.key").read_text())
    secrets = [(swarm, "swarm.key")]
    for folder in folders:
        identity = DataDir(folder).identity()
        token = (folder / "gateway.token").read_text().strip()
        secrets += [
            (identity.seed, "identity.key"),
            (identity.curve_secret_key, ""),
            (token.encode(), "gateway.token"),
        ]
    for secret, place in secrets:
        for form in forms(secret):
            assert leavings.holding(form, but=place) == [], f"a secret of {place} was found"
    planted = Leavings(dict(leavings.texts))
    planted.take("a log", f"asked {PROMPT!r} with {base64.b64encode(swarm).decode()}")
    assert planted.holding(PROMPT.encode()) == ["a log"], "the control is found"
    assert any(planted.holding(form, but="swarm.key") for form in forms(swarm))


def modes(folders: tuple[Path, ...]) -> None:
    """Folders are this user's, and so is every file that holds a secret."""
    for folder in folders:
        assert folder.stat().st_mode & 0o77 == 0
        for path in folder.iterdir():
            if path.name in SECRET_FILES or re.fullmatch(r".*\.(json|key|token|sock|check)", path.name):
                assert path.stat().st_mode & 0o77 == 0, f"{path.name} can be read by others"
