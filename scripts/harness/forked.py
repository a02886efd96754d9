"""Starts modules of this repository as forks of a process that has already imported the program.

A start of a node is one second of processor time, half of it imports; a test of swarms starts five processes. A
`ForkedProcess` is used as `subprocess.Popen` is, and is as real a process: only `exec` and the imports are left out.
"""

from __future__ import annotations

import ctypes
import json
import os
import runpy
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from scripts.harness.programs import environment

PRELOADED = (
    "node.cli.serve",
    "node.cli.run",
    "node.discovery.discovery",
    "node.gateway.server",
    "node.kernels.native",
    "node.model.template",
    "node.swarm.inviting",
)
STANDARD = 3
"""File descriptors that a program is given: stdin, stdout, stderr."""
COMMAND, ENV, PIPES = 0, 6, slice(10, 16)
"""Places of arguments of `Popen._execute_child`."""
OPEN_FILES = 256
"""More than the server ever has."""
READ_AT_START = ("PYTHON", "LANG", "LC_", "LD_", "MALLOC_", "OMP_", "OPENBLAS_")
"""Environment variables that begin like this are read when a process starts: with others, it is executed."""
PR_SET_CHILD_SUBREAPER = 36
LENGTH = struct.Struct("!I")


class ForkedProcess(subprocess.Popen[str]):
    """`subprocess.Popen` for commands of the form `[sys.executable, "-m", module, ...]`; others are executed."""

    _server: ClassVar[_Server | None] = None
    _starting: ClassVar = threading.Lock()

    def __init__(self, command: Sequence[str], env: Mapping[str, str], **pipes: Any) -> None:
        """`pipes` are the arguments stdin, stdout and stderr of `Popen`."""
        super().__init__(command, env=env, text=True, **pipes)

    def _execute_child(self, *given: Any) -> None:
        """What `Popen` calls between making the pipes and reading them."""
        command, env, pipes = given[COMMAND], given[ENV], given[PIPES]
        module = _module(command)
        if module is None or _read_at_start(env) != _read_at_start(environment()):
            super()._execute_child(*given)  # type: ignore[misc]
            return
        stdin, _, _, stdout, _, stderr = pipes
        fds = [fd if theirs == -1 else theirs for fd, theirs in enumerate((stdin, stdout, stderr))]
        with self._starting:
            if ForkedProcess._server is None or ForkedProcess._server.owner != os.getpid():
                ForkedProcess._server = _Server()
            self.pid = ForkedProcess._server.fork(module, env, fds)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def run(
    command: Sequence[str], env: Mapping[str, str] = os.environ, stdin: str = "", timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `subprocess.run` does, and capture what it prints.

    Raises:
        subprocess.TimeoutExpired: it was killed.
    """
    pipe = subprocess.PIPE
    with ForkedProcess(command, environment(env), stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            out, errors = process.communicate(stdin, timeout=timeout_s)
        except BaseException:
            process.kill()
            raise
        return subprocess.CompletedProcess(command, process.returncode, out, errors)


class _Server:
    """The other end: a process that imports the program once and forks for every request."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        # What the server forks becomes a child of this process as soon as its parent has ended.
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "this process cannot adopt what its children start")
        self._socket, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "scripts.harness.forked", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment()
            )

    def fork(self, module: list[str], env: Mapping[str, str], fds: Sequence[int]) -> int:
        request = json.dumps({"module": module, "env": dict(env), "cwd": os.getcwd()}).encode()
        socket.send_fds(self._socket, [LENGTH.pack(len(request))], list(fds))
        self._socket.sendall(request)
        return int(LENGTH.unpack(self._socket.recv(LENGTH.size, socket.MSG_WAITALL))[0])


def _module(command: Sequence[str]) -> list[str] | None:
    """Module and arguments of a command that runs a module with this interpreter; None for any other."""
    if command[0] != sys.executable:
        return None
    rest = command[2:] if command[1:2] == ["-P"] else command[1:]
    return list(rest[1:]) if rest[:1] == ["-m"] and len(rest) > 1 else None


def _read_at_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(READ_AT_START)}


def serve(connection: socket.socket) -> None:
    """Fork for each request until the other end is closed."""
    for name in PRELOADED:
        __import__(name)
    while True:
        head, fds, _, _ = socket.recv_fds(connection, LENGTH.size, STANDARD)
        if not head:
            return
        request = json.loads(connection.recv(LENGTH.unpack(head)[0], socket.MSG_WAITALL))
        told, tells = os.pipe()
        between = os.fork()
        if between == 0:
            pid = os.fork()
            if pid == 0:
                return _become(request, fds)
            os.write(tells, LENGTH.pack(pid))
            os._exit(0)
        os.waitpid(between, 0)  # from here on the other end is the parent of what was forked
        connection.sendall(os.read(told, LENGTH.size))
        for fd in (told, tells, *fds):
            os.close(fd)


def _become(request: dict[str, Any], fds: Sequence[int]) -> None:
    """Run the module in this process, as `python -m` does."""
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    os.closerange(STANDARD, OPEN_FILES)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = request["module"]
    runpy.run_module(request["module"][0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
