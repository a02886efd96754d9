"""The command line as scripts use it: lines, exit codes, one clear line for whatever is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from made_parts import identity

from node.paths import DataDir
from scripts.harness import forked
from scripts.harness.swarm import Swarm

PROGRAM = [sys.executable, "-m", "node"]
NOBODY = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB"


def call(
    *arguments: str, stdin: str = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, *arguments]
    return forked.run(command, os.environ if environment is None else environment, stdin)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the built-in model imported."""
    path = tmp_path_factory.mktemp("data")
    result = call("run", "--data-dir", str(path), "--max-tokens", "1", "Hello")
    assert result.returncode == 0, result.stderr
    return path


def refused(result: subprocess.CompletedProcess[str], *words: str, code: int = 1) -> None:
    """One clear line on stderr that holds these words, nothing on stdout, the exit code."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    line = result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert line.lower().startswith("error: ")
    if code == 1:
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    for word in words:
        assert word in line, (word, line)


def test_plain_run_streams_text_and_narrates_a_receipt(data_dir: Path) -> None:
    result = call("run", "--data-dir", str(data_dir), "--max-tokens", "12", "--seed", "1", "Once upon a time")
    assert result.returncode == 0
    assert result.stdout.strip()
    assert len(result.stderr.strip().splitlines()) == 1 and result.stderr.startswith("local: ")


def test_json_run_keeps_its_contract(data_dir: Path) -> None:
    result = call(
        "run", "--json", "--data-dir", str(data_dir), "--max-tokens", "12", "--seed", "1", "-", stdin="The cat"
    )
    events = [json.loads(line) for line in result.stdout.splitlines()]
    tokens, receipt = events[:-1], events[-1]
    assert [token["index"] for token in tokens] == list(range(len(tokens)))
    assert all(set(token) == {"type", "index", "id", "text"} and token["type"] == "token" for token in tokens)
    assert receipt["type"] == "receipt" and receipt["text"] == "".join(token["text"] for token in tokens)
    expected = {
        "text",
        "tokens",
        "prompt_tokens",
        "mode",
        "model",
        "peers",
        "chunks",
        "bytes",
        "ttft_s",
        "tokens_per_s",
    }
    assert expected | {"finish_reason"} <= set(receipt)
    assert {"sent", "verified", "rejected", "hedged", "local"} <= set(receipt["chunks"])
    assert set(receipt["bytes"]) == {"up", "down"}
    assert receipt["finish_reason"] in ("stop", "length") and receipt["tokens"] == len(tokens)


def test_a_run_ends_at_a_token_that_is_named(data_dir: Path) -> None:
    def token_ids(*options: str) -> tuple[list[int], str]:
        result = call(
            "run", "--json", "--data-dir", str(data_dir), "--temperature", "0", *options, "Once upon a time"
        )
        events = [json.loads(line) for line in result.stdout.splitlines()]
        return [event["id"] for event in events[:-1]], events[-1]["finish_reason"]

    whole, _reason = token_ids("--max-tokens", "8")
    ended = token_ids("--max-tokens", "8", "--stop-token-id", str(whole[4]), "--stop-token-id", "1")
    assert ended == (whole[: whole.index(whole[4]) + 1], "stop")


def test_same_seed_same_text_other_seed_other_text(data_dir: Path) -> None:
    def text(seed: str) -> str:
        return call(
            "run", "--data-dir", str(data_dir), "--max-tokens", "24", "--temperature", "1", "--seed", seed, "One day"
        ).stdout

    assert text("5") == text("5") != text("6")


def test_facts(data_dir: Path) -> None:
    peer_id = call("id", "--data-dir", str(data_dir)).stdout.strip()
    assert peer_id.startswith("12D3KooW")
    facts = json.loads(call("id", "--json", "--data-dir", str(data_dir)).stdout)
    assert facts == {"peer_id": peer_id, "gateway": None}
    models = json.loads(call("models", "--json", "--data-dir", str(data_dir)).stdout)["models"]
    assert [model["names"] for model in models] == [["story"]]
    assert "kek/1" in call("version").stdout
    assert json.loads(call("bench", "--json", "--data-dir", str(data_dir)).stdout)["tokens_per_s"] > 0
    key = data_dir / "identity.key"
    assert key.stat().st_mode & 0o777 == 0o600 and len(key.read_bytes()) == 32


def test_every_command_has_help() -> None:
    for command in ([], ["run"], ["import"], ["models"], ["id"], ["bench"], ["version"]):
        result = call(*command, "--help")
        assert result.returncode == 0 and "Usage:" in result.stdout


def test_the_built_in_name_cannot_be_taken(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(Path(__file__).parent.parent / "node" / "models" / "story", folder)
    refused(
        call("import", str(folder), "--name", "story", "--data-dir", str(data_dir)), "story", "built-in", "--name"
    )


def test_import_makes_a_model_that_runs(data_dir: Path, tmp_path: Path) -> None:
    folder = Path(__file__).parent.parent / "node" / "models" / "story"
    imported = call("import", str(folder), "--name", "mine", "--data-dir", str(tmp_path))
    assert imported.returncode == 0, imported.stderr
    assert call("run", "--data-dir", str(tmp_path), "--model", "mine", "--max-tokens", "2", "Hi").returncode == 0


def started(*arguments: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """A node, and what its ready line says."""
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_node_says_where_it_is_and_leaves_when_asked(tmp_path: Path, signal_number: int) -> None:
    process, ready = started(*PROGRAM, "--json", "--headless", "--data-dir", str(tmp_path))
    assert ready["type"] == "ready" and ready["addrs"][0].endswith(f"/p2p/{ready['peer_id']}")
    asked_at = time.monotonic()
    process.send_signal(signal_number)
    _out, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert time.monotonic() - asked_at < 3
    assert "Traceback" not in err


def test_a_node_leaves_in_good_order_with_its_terminal(tmp_path: Path) -> None:
    process, _ready = started(*PROGRAM, "--json", "--headless", "--data-dir", str(tmp_path))
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGHUP)
    assert process.wait(10) == 0


def test_nohup_keeps_a_node(tmp_path: Path) -> None:
    process, _ready = started("nohup", *PROGRAM, "--json", "--headless", "--data-dir", str(tmp_path))
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
    assert int(status["SigIgn"], 16) & 1 << (signal.SIGHUP - 1)
    process.terminate()
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_a_run_can_be_interrupted(data_dir: Path) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "run", "--json", "--ignore-eos", "--max-tokens", "400", "--data-dir", str(data_dir), "Once"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=10)
    assert process.returncode in (0, 130) and "Traceback" not in err


def test_a_run_has_its_data_directory_to_itself_until_it_ends(data_dir: Path) -> None:
    command = [*PROGRAM, "run", "--data-dir", str(data_dir), "--max-tokens", "2", "Once"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        address = f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}/p2p/{identity(2).peer_id}"
        waits = subprocess.Popen([*command, "--open", "--bootstrap", address, "--peer-timeout", "60"])
        silent.accept()[0].close()
        assert DataDir(data_dir).lock() is None
        waits.send_signal(signal.SIGINT)
        assert waits.wait(20) == 130
    lock = DataDir(data_dir).lock()
    assert lock is not None
    with lock:
        beside = subprocess.run([*command, "--privacy", "local"], capture_output=True)
        assert beside.returncode == 0, "another process uses it: this run writes nothing there"


def test_running_imports_no_torch() -> None:
    code = "import sys, node.cli.main; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_text_is_utf8_whatever_the_locale_says(data_dir: Path) -> None:
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii",
    }
    command = [*PROGRAM, "run", "--json", "--data-dir", str(data_dir), "--max-tokens", "8", "--temperature", "3", "-"]
    result = subprocess.run(command, input="h\u00e9llo \U0001f98a".encode(), env=environment, capture_output=True)
    assert result.returncode == 0, result.stderr.decode()
    assert json.loads(result.stdout.decode("utf-8").splitlines()[-1])["type"] == "receipt"


def test_stdin_that_is_not_text_and_output_that_goes_nowhere(data_dir: Path) -> None:
    command = [*PROGRAM, "run", "--data-dir", str(data_dir), "--max-tokens", "2"]
    for arguments, stdin in ((["-"], b"Once \xff upon"), ([b"Once \xff upon"], b"")):
        result = subprocess.run([*command, *arguments], input=stdin, capture_output=True)
        assert result.returncode == 1 and b"UTF-8" in result.stderr and b"Traceback" not in result.stderr
    with open("/dev/full", "w") as full:
        result = subprocess.run([*command, "Hi"], stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1 and result.stderr.count(b"\n") == 1 and b"No space left" in result.stderr
    closed = subprocess.run(["sh", "-c", f"{' '.join(command)} - <&- >&-"], capture_output=True)
    assert closed.returncode == 1 and b"Traceback" not in closed.stderr


def test_a_node_on_every_interface_names_real_addresses(tmp_path: Path) -> None:
    with Swarm() as swarm:
        swarm.start(1, options=["--listen", "/ip4/0.0.0.0/tcp/0"])
        assert "/ip4/0.0.0.0/" not in swarm.nodes[0].address and swarm.nodes[0].address.startswith("/ip4/")


# --- bad input: one clear line, exit code not 0, nothing half-written


def test_missing_model(data_dir: Path) -> None:
    refused(call("run", "--data-dir", str(data_dir), "--model", "nowhere", "Hi"), "nowhere", "story")


def test_empty_prompt(data_dir: Path) -> None:
    refused(call("run", "--data-dir", str(data_dir), "  "), "prompt is empty")
    refused(call("run", "--data-dir", str(data_dir), "-", stdin="\n"), "prompt is empty")


def test_prompt_longer_than_the_context(data_dir: Path) -> None:
    refused(call("run", "--data-dir", str(data_dir), "word " * 3000), "tokens", "context", "shorten")


def test_corrupt_unit(data_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(data_dir, copy)
    unit = next(copy.rglob("*.w8"))
    content = bytearray(unit.read_bytes())
    content[len(content) // 2] ^= 1
    unit.chmod(0o600)
    unit.write_bytes(content)
    refused(call("run", "--data-dir", str(copy), "Hi"), unit.name, "import")
    refused(call("--headless", "--json", "--data-dir", str(copy)), unit.name, "import")


@pytest.mark.parametrize(
    "address",
    [
        "nonsense",
        "/ip4/127.0.0.1/tcp/4711",
        "/ip4/300.0.0.1/tcp/1/p2p/x",
        NOBODY.replace("tcp", "udp"),
        NOBODY[:-1] + "0",
    ],
)
def test_malformed_address(data_dir: Path, address: str) -> None:
    refused(call("run", "--data-dir", str(data_dir), "--bootstrap", address, "Hi"), "--bootstrap", code=2)


def test_nobody_at_the_address_means_local_and_says_so(data_dir: Path) -> None:
    result = call(
        "run",
        "--json",
        "--data-dir",
        str(data_dir),
        "--max-tokens",
        "2",
        "--bootstrap",
        NOBODY,
        "--privacy",
        "split",
        "Hi",
    )
    assert result.returncode == 0
    assert "nobody answered" in result.stderr and NOBODY in result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["mode"] == "local"


def test_port_in_use(data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
        refused(call("--headless", "--data-dir", str(data_dir), "--listen", address), address, "in use", "--listen")


def test_data_directory_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    refused(call("run", "--data-dir", str(file / "below"), "Hi"), str(file / "below"), "--data-dir")
    if os.geteuid() != 0:  # root may write anywhere
        sealed = tmp_path / "sealed"
        sealed.mkdir(mode=0o500)
        refused(call("id", "--data-dir", str(sealed)), str(sealed), "--data-dir")


def test_two_nodes_on_one_data_directory(tmp_path: Path) -> None:
    with Swarm() as swarm:
        swarm.start(1)
        refused(call("--headless", "--data-dir", str(swarm.nodes[0].data_dir)), "another node")


@pytest.mark.swarm
def test_a_peer_of_another_protocol_version(data_dir: Path) -> None:
    with Swarm() as swarm:
        swarm.start(1, {0: ["--fault", "version"]})
        arguments = ["run", "--data-dir", str(data_dir), "--max-tokens", "2", *swarm.bootstrap(), "Hi"]
        refused(call(*arguments), "another swarm", "join")
        result = call(*arguments, environment=swarm.environment)
        assert result.returncode == 1 and result.stdout == ""
        line = result.stderr.strip().splitlines()[-1]
        assert line.startswith("error: ") and "kek/2" in line and "kek/1" in line and "update" in line


def test_usage_errors_have_exit_code_2(data_dir: Path) -> None:
    for arguments in (["run"], ["run", "--privacy", "weak", "Hi"], ["--nonsense"], ["run", "--lanes", "0", "Hi"]):
        result = call(*arguments)
        assert result.returncode == 2 and "Usage:" in result.stderr
    for arguments in (["--temperature", "-1"], ["--top-p", "7"], ["--seed", "-1"], ["--temperature", "nan"]):
        refused(call("run", "--data-dir", str(data_dir), *arguments, "Hi"), arguments[0].strip("-")[:3], code=2)
    refused(call("--bootstrap", NOBODY, "run", "Hi"), "--bootstrap", "after", code=2)


def test_the_portable_kernels_tell_the_same_story_structure(data_dir: Path) -> None:
    """Without the compiled kernels everything works, and says why it is slower."""
    environment = {**os.environ, "KEKAHYDE_KERNELS": "portable"}
    result = subprocess.run(
        [*PROGRAM, "bench", "--json", "--data-dir", str(data_dir)], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["kernels"] == "portable" and "note:" in result.stderr


def test_the_gateway_is_where_it_was_asked_to_be(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused(call("--data-dir", str(tmp_path), "--gateway", address), address, "in use", "--no-gateway")
    for wrong in ("here", "127.0.0.1", "127.0.0.1:99999", "example.org:80"):
        assert call("--data-dir", str(tmp_path), "--gateway", wrong).returncode == 2
    assert call("--data-dir", str(tmp_path), "--gateway", address, "--no-gateway").returncode == 2
    process = subprocess.Popen(
        [*PROGRAM, "--json", "--headless", "--data-dir", str(tmp_path), "--no-gateway"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["gateway"] is None
    result = call("run", "--data-dir", str(tmp_path), "--max-tokens", "2", "--privacy", "local", "Once")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert result.returncode == 0, result.stderr


def test_a_lone_run_loads_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    needless = {"aiohttp", "email", "http.client", "importlib.metadata", "jinja2", "psutil", "rich", "zeroconf"}
    needless.add("node.audit")
    code = "import atexit, sys; from node.cli import main; atexit.register(lambda: print(*sys.modules)); main()"
    words = ["run", "Hi", "--max-tokens", "1", "--data-dir", str(tmp_path)]
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert not needless & set(ran.stdout.split())
