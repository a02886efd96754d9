"""Finds the node that runs on a data directory, or starts one. It ends only a node that it started."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from tui.gateway import GatewayPlace
from tui.snapshot import clean

READY_TIMEOUT_S = 120.0
"""Long, because a first start converts the built-in model, and a large model takes time to load."""
STOP_TIMEOUT_S = 8.0
POLL_S = 0.05
KEPT_LINES = 200


class StartError(Exception):
    """No node answers and none could be started; the text says why, with the node's own message."""


class NodeEndedError(StartError):
    """The node that was started here has ended by itself."""


class NodeLauncher:
    """The node behind an interface."""

    def __init__(self, data_dir: Path, command: Sequence[str] | None) -> None:
        """`command` starts a node that prints its `ready` line; None: use only a running node."""
        self.place = GatewayPlace(data_dir)
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self.said: deque[str] = deque(maxlen=KEPT_LINES)
        """The last lines that the node wrote to stderr."""

    @property
    def pid(self) -> int | None:
        """The process id of the node that was started here."""
        return None if self._process is None else self._process.pid

    async def ensure(self) -> None:
        """Return when a node answers; raises StartError."""
        if await self.place.answers():
            return
        if self._command is None:
            raise StartError(f"no node runs on {self.place.data_dir}: start one with `kekahyde-node`")
        await self._start(self._command)
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await self._wait_ready()
        except TimeoutError as exc:
            await self.stop()
            raise StartError(f"the node was not ready after {READY_TIMEOUT_S:.0f} s\n{self._words()}") from exc

    async def _start(self, command: Sequence[str]) -> None:
        self.said.clear()
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,  # never written; it closes when this process ends, and the node ends too
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # signals from this terminal go to the interface, which then ends the node
        )
        assert self._process.stderr is not None
        self._reader = asyncio.create_task(self._listen(self._process.stderr))

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        while chunk := await stream.read(1 << 14):
            self.said.extend(line for line in clean(chunk.decode(errors="replace")).splitlines() if line.strip())

    async def _wait_ready(self) -> None:
        process = self._process
        assert process is not None and process.stdout is not None
        line = await process.stdout.readline()
        with contextlib.suppress(ValueError):
            if line and json.loads(line).get("type") == "ready":
                self._drain = asyncio.create_task(_discard(process.stdout))
                await self._wait_answer(process)
                return
        await process.wait()
        if self._reader is not None:
            await self._reader
        raise StartError(self._words())

    async def _wait_answer(self, process: asyncio.subprocess.Process) -> None:
        while not await self.place.answers():
            if process.returncode is not None:
                raise StartError(self._words())
            await asyncio.sleep(POLL_S)

    async def watch(self) -> None:
        """Wait for ever; if the node that was started here ends, raise NodeEndedError."""
        if self._process is None:
            await asyncio.Event().wait()
        assert self._process is not None
        code = await self._process.wait()
        if self._reader is not None:
            await self._reader
        raise NodeEndedError(f"it ended with exit code {code}; its last output:\n{self._words()}")

    def _words(self) -> str:
        """The node's last output; its error line if there is one."""
        errors = [line for line in self.said if line.lower().startswith(("error:", "usage:"))]
        words = [line.removeprefix("error: ").removeprefix("Error: ") for line in errors]
        return "\n".join(words or list(self.said)[-8:]) or "the node ended without any output"

    async def stop(self) -> None:
        """End the node that was started here: first with SIGTERM, then with SIGKILL."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _discard(stream: asyncio.StreamReader) -> None:
    while await stream.read(1 << 14):
        pass
