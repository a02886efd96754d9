"""An honest client of a node: asks its gateway over HTTP as any program does, checks every answer, times it.

Its prompts have one answer each (the seed is fixed), so a text that differs from what the node computes alone is a
fault, whatever went on around it.
"""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from scripts.harness.swarm import NodeProcess

PROMPT = "Once upon a time, there was a little girl named Lily. One day they"
ANSWER_LIMIT_S = 120.0
ALIVE_LIMIT_S = 20.0


class DifferentAnswerError(Exception):
    """An answer that is not the text that the node computes alone."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer and what its receipt said."""

    text: str
    tokens: int
    seconds: float
    receipt: dict[str, Any]

    @property
    def lent(self) -> float:
        """The part of its chunks that peers computed, 0 to 1."""
        chunks = self.receipt["chunks"]
        verified, local = int(chunks["verified"]), int(chunks["local"])
        return verified / max(1, verified + local)


@dataclass(slots=True)
class Pace:
    """Tokens and the seconds that they took, of the answers of one stretch of time."""

    tokens: int = 0
    seconds: float = 0.0
    answers: int = 0
    lent: list[float] = field(default_factory=list)

    def add(self, answer: Answer) -> None:
        self.tokens, self.seconds = self.tokens + answer.tokens, self.seconds + answer.seconds
        self.answers += 1
        self.lent.append(answer.lent)

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def lent_share(self) -> float:
        """The part of the chunks that peers computed, 0 to 1, over all answers."""
        return sum(self.lent) / len(self.lent) if self.lent else 0.0


class HonestClient:
    """Asks one node, which answers with the help of its peers."""

    def __init__(self, node: NodeProcess, tokens: int = 24) -> None:
        self._netloc = urlsplit(node.gateway).netloc
        self._tokens = tokens
        self._alone: dict[str, str] = {}

    def ask(self, privacy: str, prompt: str = PROMPT) -> Answer:
        """One answer, compared with the node's own. Raises DifferentAnswerError, or OSError where nobody answers."""
        if prompt not in self._alone:
            self._alone[prompt] = self._complete("local", prompt).text
        answer = self._complete(privacy, prompt)
        if answer.text != self._alone[prompt]:
            raise DifferentAnswerError(f"{privacy}: {answer.text!r} instead of {self._alone[prompt]!r}")
        return answer

    def ask_for(self, seconds: float, privacy: str = "split") -> Pace:
        """Ask again and again for so long; at least once."""
        pace, until = Pace(), time.monotonic() + seconds
        while not pace.answers or time.monotonic() < until:
            pace.add(self.ask(privacy))
        return pace

    def ask_and_leave(self, privacy: str, events: int, prompt: str = PROMPT) -> None:
        """Begin to read a streamed answer and hang up after some events."""
        connection, response = self._post(self._wanted(privacy, prompt) | {"stream": True, "max_tokens": 200})
        try:
            for _ in range(events):
                if not response.readline():
                    return
        finally:
            connection.close()

    def is_alive(self) -> bool:
        """Whether the node answers `/health`."""
        connection = http.client.HTTPConnection(self._netloc, timeout=ALIVE_LIMIT_S)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def _complete(self, privacy: str, prompt: str) -> Answer:
        started = time.monotonic()
        connection, response = self._post(self._wanted(privacy, prompt))
        try:
            said = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise OSError(f"the gateway answered {response.status}: {said}")
        return Answer(
            said["choices"][0]["text"],
            said["usage"]["completion_tokens"],
            time.monotonic() - started,
            said["kekahyde"],
        )

    def _wanted(self, privacy: str, prompt: str) -> dict[str, Any]:
        return {
            "model": "story",
            "prompt": prompt,
            "max_tokens": self._tokens,
            "seed": 3,
            "temperature": 0.8,
            "ignore_eos": True,
            "privacy": privacy,
        }

    def _post(self, wanted: dict[str, Any]) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self._netloc, timeout=ANSWER_LIMIT_S)
        connection.request("POST", "/v1/completions", json.dumps(wanted), {"Content-Type": "application/json"})
        return connection, connection.getresponse()
