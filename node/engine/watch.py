"""Describes changes of a session's peers while it runs, in words for the user."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from node.engine.request import GenerationRequest
from node.engine.running import Running
from node.execution.chunk import ChunkRecord
from node.execution.interrupt import Interrupt
from node.execution.peer import SessionPeer
from node.planning.cost import Cost
from node.privacy import Privacy
from node.session.plan import PadMaker
from node.session.plan_line import PlanLine
from node.session.receipt import LEFT_FOR, way_text
from node.session.session import Session

OpenSession = Callable[[Running, Callable[[ChunkRecord], None], Interrupt], Session]
"""Forms the session for a first request."""
Fingerprint = Callable[[], object]
"""Of the peers with which a session could be formed."""


class PeerWatch:
    """Compares the states of a session's peers with their earlier states."""

    def __init__(self) -> None:
        self._before: dict[int, str] = {}
        self._looked = False

    def news(self, peers: Sequence[SessionPeer]) -> list[str]:
        """One sentence for every peer whose state has changed since the last call."""
        notes = []
        for index, peer in enumerate(peers):
            now = peer.standing
            if index not in self._before and self._looked:
                notes.append(f"peer {peer.called} joins, and is used from the next rows on")
            before = self._before.setdefault(index, now)
            if now != before:
                self._before[index] = now
                notes.append(f"peer {peer.called} {_SENTENCES[now]}")
        self._looked = True
        return notes


def still_fits(session: Session, request: GenerationRequest) -> bool:
    """Whether a session's mode is still the best for a request that lets this device choose."""
    if request.privacy is not Privacy.AUTO:
        return True
    plan = session.replan(len(request.prompt_ids), request.params.max_tokens)
    lost = plan.lanes_mode is not None and not any(span.peer_id for span in session.spans)  # the own device is back
    return (plan.mode, plan.outside) == (session.mode, session.plan.outside) and not lost


def explain(session: Session, predicted: Cost | None = None) -> str:
    """One sentence: how a session runs, and the prediction for a request in it."""
    line = PlanLine.of(session.plan, predicted)
    return _how(session) if line is None else f"{_how(session)}; {line.as_line()}"


def _how(session: Session) -> str:
    peers = len({peer.peer_id for peer in session.peers})
    match session.mode:
        case Privacy.LOCAL:
            return "local: everything is computed on this device"
        case Privacy.STRICT:
            sharers = len({lane.share for lane in session.plan.lanes})
            where = "on a paired device" if session.plan.pad_maker is PadMaker.PAIRED else "on this device"
            get = "peer gets" if sharers == 1 else "peers get"
            return f"strict: {sharers} {get} padded rows, the pads are made {where}"
        case Privacy.TRUSTED:
            if session.spans:
                return f"trusted: {way_text(session.spans)}; these devices of yours can read the prompt"
            get = "device of yours gets" if peers == 1 else "of your devices get"
            return f"trusted: {peers} {get} plain rows, and can read the prompt"
        case mode:
            lanes = session.plan.num_lanes
            where = (
                f"in {lanes} lane{'' if lanes == 1 else 's'}"
                if lanes or not peers
                else "stand in for lanes that are incomplete"
            )
            return f"{mode.value}: {peers} peers {where}, no peer sees both halves of a row"


_SENTENCES = {
    "active": "is back",
    "suspended": "does not answer in time: its work is done by other peers or on this device",
    "banned": "returned a wrong number: it was caught and gets no more work; its work is done again elsewhere",
    "doubted": "and another device computed different results: neither is used any more",
    "left": "says goodbye: it finishes its current work, new rows go elsewhere",
    "lost": "was lost: its work is done by other peers or on this device",
    **{reason.value: sentence for reason, sentence in LEFT_FOR.items()},
}
