"""The words for states, sizes and times. A state always has a sign and a word, never only a colour."""

from __future__ import annotations

from collections.abc import Sequence

from tui.conversation import Answer, AnswerStatus
from tui.snapshot import Fields, ModelFacts, NodeState, PeerFacts

PEER_SIGNS = {"alive": "●", "suspect": "◐", "dead": "○", "left": "◌"}
CHUNK_SIGNS = {
    "planned": "·",
    "sent": "→",
    "received": "←",
    "verified": "✓",
    "merged": "✓",
    "late": "?",
    "hedged": "+",
    "rejected": "✗",
    "lost": "!",
    "local": "⌂",
    "dropped": "–",
}
CHUNK_WORDS = {
    "planned": "to be sent",
    "sent": "on its way",
    "received": "being checked",
    "verified": "right",
    "merged": "right, used",
    "late": "late",
    "hedged": "computed here too",
    "rejected": "WRONG, refused",
    "lost": "lost with its peer",
    "local": "computed here",
    "dropped": "given up",
}
MODES = {
    "auto": "your node chooses: with peers if that is faster, never less private than asked",
    "local": "only this device computes; nobody else sees anything",
    "split": "one group of peers makes pads, another computes on padded numbers",
    "strict": "peers compute on padded numbers; every pad is made on your own devices",
    "trusted": "only devices that you paired compute, on plain numbers",
}
COULD_READ = {
    "auto": "devices that you let read prompts; else nobody, unless both peers of one pair work together",
    "local": "nobody",
    "split": "nobody, unless both peers of one pair work together",
    "strict": "nobody, not even all peers together",
    "trusted": "the devices that you paired and allowed to",
}
"""Who could read a prompt in each mode."""
SHOWN_NOTES = 3
BARS = "▁▂▃▄▅▆▇█"


def bytes_words(count: float) -> str:
    """Bytes in a unit that is easy to read."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration_words(seconds: float) -> str:
    """Seconds as 0.08 s, 12 s, 3 min 20 s."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def rtt_words(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "–"
    return f"{milliseconds:.1f} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"


def count_words(count: int, noun: str) -> str:
    """3 peers, 1 peer, no peers."""
    if count == 0:
        return f"no {noun}s"
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def bar(share: float, width: int) -> str:
    """A progress bar of text."""
    full = round(max(0.0, min(1.0, share)) * width)
    return "█" * full + "░" * (width - full)


def sparkline(values: Sequence[float]) -> str:
    """Values as one line of small bars; zero is a blank."""
    top = max(values, default=0.0)
    if top <= 0:
        return " " * len(values)
    return "".join(" " if value <= 0 else BARS[min(7, int(8 * value / top))] for value in values)


def peer_state(peer: PeerFacts) -> str:
    """The sign and word for a peer's state."""
    if peer.excluded.startswith("banned"):
        return "✗ banned"
    word = peer.state or "unknown"
    if peer.state == "alive" and not peer.connected:
        return "◌ not linked"
    if peer.state == "alive" and peer.excluded:
        return "✗ left out"
    return f"{PEER_SIGNS.get(peer.state, '?')} {word}"


def role_words(roles: Sequence[str]) -> str:
    """What a peer is used for."""
    names = {"pad": "pads", "share": "computes", "plain": "trusted"}
    return " + ".join(names.get(role, role) for role in roles) or "–"


def chunk_state(state: str) -> str:
    return f"{CHUNK_SIGNS.get(state, '·')} {CHUNK_WORDS.get(state, state)}"


def progress_line(answer: Answer) -> str:
    """What the user waits for before the first token; empty afterwards."""
    match answer.status:
        case AnswerStatus.ASKED:
            return "… sent to your node"
        case AnswerStatus.QUEUED:
            return f"… waiting, {count_words(answer.position, 'request')} before this one"
        case AnswerStatus.READING:
            done, total = answer.prefill
            if total:
                return f"reading the prompt {bar(done / total, 20)} {done}/{total} tokens"
            return "… reading the prompt"
        case _:
            return ""


def end_line(answer: Answer) -> str:
    """One line under an answer that has ended."""
    if answer.status is AnswerStatus.FAILED:
        return f"✗ no answer: {answer.error}"
    parts = []
    if answer.status is AnswerStatus.STOPPED:
        parts.append("■ «stopped»")
    if answer.status is AnswerStatus.DONE:
        if not answer.text.strip():
            parts.append("the model added nothing")
        if answer.finish_reason == "length":
            parts.append("… length limit reached")
    if answer.mode:
        parts.append(answer.mode)
    parts.append(count_words(answer.tokens, "token"))
    if answer.ttft_s is not None:
        parts.append(f"first after {duration_words(answer.ttft_s)}")
    if answer.tokens_per_s:
        parts.append(f"{answer.tokens_per_s:.0f} tok/s")
    return " · ".join(parts)


def chunk_counts(answer: Answer, state: NodeState) -> dict[str, int]:
    """Counts of chunks, from the receipt, else from the running request."""
    if answer.receipt:
        return Fields(answer.receipt).counts("chunks")
    return next((request.chunks for request in state.requests if request.request == answer.request), {})


def status_line(link: str, state: NodeState, answer: Answer | None, privacy: str, model: str, width: int) -> str:
    """The line above the keys: mode, peers, speed, first token, chunks; less of it if the terminal is narrow."""
    if link:
        return link[:width]
    parts = [f"next prompt: {privacy}", count_words(state.helpers, "peer")]
    if answer is not None and answer.tokens:
        sign = "▶ " if not answer.ended else ""
        parts.append(f"{sign}{answer.tokens_per_s:.1f} tok/s")
        if answer.ttft_s is not None:
            parts.append(f"first token {duration_words(answer.ttft_s)}")
        counts = chunk_counts(answer, state)
        if answer.mode != "local" and any(counts.get(name) for name in ("verified", "rejected", "local")):
            parts.append(
                f"chunks ✓ {counts.get('verified', 0)} verified ✗ {counts.get('rejected', 0)} rejected "
                f"⌂ {counts.get('local', 0)} here"
            )
    elif answer is not None and not answer.ended:
        parts.append(progress_line(answer))
    if answer is not None and (share := context_share(answer, state.model(model))):
        parts.append(f"context {share}")
    parts.append(f"model {model}")
    return _fitting(parts, width)


def context_share(answer: Answer, model: ModelFacts | None) -> str:
    """How much of the model's context the last prompt and its answer take; empty if that is not known."""
    read = Fields(answer.receipt).count("prompt_tokens") if answer.receipt else answer.prompt_tokens
    if not read or model is None or not model.context:
        return ""
    return f"{min(100, round(100 * (read + answer.tokens) / model.context))} %"


def _fitting(parts: list[str], width: int) -> str:
    line = " · ".join(parts)
    if len(line) > width:
        parts = [part.replace(" verified", "").replace(" rejected", "").replace(" here", "") for part in parts]
        parts = [
            part.replace("next prompt: ", "").replace("first token ", "TTFT ").replace("chunks ", "")
            for part in parts
        ]
        line = " · ".join(parts)
    if len(line) > width:
        line = " · ".join(parts[:-1])
    return line[:width]


def shown_notes(notes: Sequence[str]) -> list[str]:
    """The newest notes of an answer, and how many earlier ones there are."""
    if len(notes) <= SHOWN_NOTES:
        return list(notes)
    return [f"{len(notes) - SHOWN_NOTES} earlier notes (the receipt has all of them)", *notes[-SHOWN_NOTES:]]


def link_notice(address: str) -> str:
    """The notice after a click on a link in an answer."""
    return address if len(address) <= 200 else f"{address[:200]}…"
