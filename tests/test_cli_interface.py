"""The command line around the interface: who gets one, what a node is started with, texts for shell and systemd."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from node.cli.interface import node_arguments
from node.cli.service import PROGRAM, _quoted

NODE = [sys.executable, "-m", "node"]


def call(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*NODE, *arguments], capture_output=True, text=True, timeout=60, env={**os.environ, **env}, check=False
    )


def test_a_headless_node_never_loads_what_draws() -> None:
    code = (
        "import sys, node.cli, node.cli.serve, node.gateway.server, node.cli.interface\n"
        "print(sorted({'textual', 'textual_serve', 'tui', 'selenium'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_without_a_terminal_the_interface_says_what_to_do(tmp_path: Path) -> None:
    refused = call("tui", "--data-dir", str(tmp_path / "data"))
    assert refused.returncode == 1 and refused.stdout == ""
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "--web" in refused.stderr and "--headless" in refused.stderr
    assert not (tmp_path / "data").exists()


def test_what_contradicts_itself_is_wrong_usage() -> None:
    for arguments in (["--web", "--headless"], ["--web-port", "0"], ["tui", "--web-port", "many"]):
        assert call(*arguments).returncode == 2


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = call("--web", "--web-port", port, "--data-dir", str(tmp_path), "--listen", "none")
    assert refused.returncode == 1 and refused.stdout == ""
    assert port in refused.stderr and "--web-port" in refused.stderr
    assert not (tmp_path / "control.sock").exists(), "the node that was started for it must have ended"


def test_the_node_gets_every_option_but_those_of_the_interface() -> None:
    given = [
        "--web",
        "--listen",
        "none",
        "--data-dir",
        "/x",
        "--web-port=8000",
        "-v",
        "--data-dir=/y",
        "--model",
        "m",
    ]
    assert node_arguments(given) == ["--listen", "none", "-v", "--model", "m"]
    assert node_arguments(["--web-port", "9", "--bootstrap", "a"]) == ["--bootstrap", "a"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    printed = call("completion", shell)
    assert printed.returncode == 0 and "_KEKAHYDE_NODE_COMPLETE" in printed.stdout
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=printed.stdout, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr


def test_completion_completes() -> None:
    offered = call(COMP_WORDS=f"{PROGRAM} ru", COMP_CWORD="1", _KEKAHYDE_NODE_COMPLETE="bash_complete")
    assert "plain,run" in offered.stdout.splitlines()


def test_the_service_runs_what_is_installed(tmp_path: Path) -> None:
    printed = call("service", "--listen", "/ip4/0.0.0.0/tcp/4711", "--data-dir", "/my data/100%")
    assert printed.returncode == 0
    start = next(line for line in printed.stdout.splitlines() if line.startswith("ExecStart="))
    assert start.endswith('--headless --data-dir "/my data/100%%" --listen /ip4/0.0.0.0/tcp/4711')
    if shutil.which("systemd-analyze"):
        unit = tmp_path / "kekahyde-node.service"
        unit.write_text(printed.stdout)
        checked = subprocess.run(
            ["systemd-analyze", "--user", "verify", str(unit)], capture_output=True, text=True, check=False
        )
        assert "kekahyde-node.service" not in checked.stderr, checked.stderr


@pytest.mark.parametrize(("setting", "value"), [("MemoryMax", "75%"), ("LimitCORE", "0"), ("LimitNOFILE", "65536")])
def test_the_service_is_bounded_and_says_why(setting: str, value: str) -> None:
    """In the section where systemd looks for it, under a comment."""
    lines = call("service").stdout.splitlines()
    at = lines.index(f"{setting}={value}")
    assert lines[at - 1].startswith("# ")
    assert lines.index("[Service]") < at < lines.index("[Install]")


def test_a_service_names_files_from_the_root_and_checks_options(tmp_path: Path) -> None:
    (tmp_path / "my.key").touch()
    runs = [sys.executable, "-m", "node", "service"]
    given = ["--data-dir", "here", "--swarm-key=my.key", "--model", "story"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    made = subprocess.run([*runs, *given], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert made.returncode == 0, made.stderr
    assert f"--data-dir {tmp_path / 'here'} --swarm-key {tmp_path / 'my.key'} --model story\n" in made.stdout
    wrong = subprocess.run([*runs, "--listen", "foo"], capture_output=True, text=True, env=environment)
    assert wrong.returncode == 2 and "--listen" in wrong.stderr and not wrong.stdout


def test_words_as_systemd_reads_them() -> None:
    assert _quoted(["a", "b c", 'd"e', "f\\g", "h$i%"]) == 'a "b c" "d\\"e" "f\\\\g" h$$i%%'
