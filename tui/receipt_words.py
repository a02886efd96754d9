"""A receipt in plain words: who saw what, what was checked, what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tui.snapshot import Fields, short_id
from tui.words import bytes_words, count_words, duration_words

_WHO_SAW = {
    "local": "**Nobody but this device saw anything.** No peer took part.",
    "strict": (
        "**No peer could read anything, not even all of them together.** They computed on numbers that look like "
        "noise. The pads that decode these numbers were made on your own devices and never left them."
    ),
    "split": (
        "**No single peer could read anything.** One group got only seeds of random numbers, the other only numbers "
        "that look like noise. Only a pad maker and a computing peer of the same pair could read the prompt, "
        "and only by working together."
    ),
    "trusted": (
        "**The paired devices below could read this prompt and its answer.** You allowed that when you paired them."
    ),
}
_ROLES = {
    "pad": "made pads; got seeds of random numbers and nothing of the prompt",
    "share": "computed; got numbers that look like noise",
    "plain": "computed on plain numbers; **could read the prompt**",
}
_STATUS = {
    "lost": " Its connection was lost.",
    "banned": " It sent a wrong result, was caught at once and is banned.",
    "suspended": " It was late several times in a row and got no more work.",
    "late": " It cost more time than allowed and got no more work.",
    "failing": " It answered with errors and got no more work.",
    "doubted": " It and another device computed different results, and this device cannot tell which is wrong.",
    "noisy": " It sent unrequested messages and got no more work.",
}
_REASONS = {
    "stop": "The model ended the text.",
    "length": "The text reached the length limit.",
    "cancelled": "You stopped it.",
    "error": "The rest could not be computed: the note says why.",
}


def receipt_markdown(receipt: Mapping[str, Any], plan: str = "") -> str:
    """The receipt for a person, as Markdown."""
    fields = Fields(receipt)
    mode = fields.text("mode")
    parts = [
        f"## {mode.capitalize()}: who saw what",
        _WHO_SAW.get(mode, f"Mode {mode}."),
        _others(fields),
        _asked(fields, mode, plan),
        _peers(fields),
        "## What was checked",
        _checks(fields),
        "## What it took",
        _cost(fields),
        "## What peers still learn" if mode != "local" else "",
        "Which model you use, roughly how long prompt and answer are, when you asked, and your network address."
        if mode != "local"
        else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _others(fields: Fields) -> str:
    """What devices of others saw, where they computed layers that the user's own devices did not."""
    modes = dict.fromkeys(span.text("lent") for span in fields.objects("spans") if span.text("lent"))
    return " ".join(f"Devices of others helped in `{_code(mode)}`. {_WHO_SAW.get(mode, '')}" for mode in modes)


def _asked(fields: Fields, mode: str, plan: str) -> str:
    asked = fields.text("asked")
    lines = []
    if asked and asked != mode:
        lines.append(f"You asked for `{asked}`; the mode was `{mode}`.")
    if plan:
        lines.append(f"{_plain(plan).rstrip('.')}.")
    if fields.text("note"):
        lines.append(f"Note: {_plain(fields.text('note'))}")
    return " ".join(lines)


def _peers(fields: Fields) -> str:
    lines = []
    for peer in fields.objects("peers"):
        role = _ROLES.get(peer.text("role"), _plain(peer.text("role")))
        wrong = peer.count("rejected")
        caught = f", {wrong} of its results were wrong and refused" if wrong else ""
        sent = f" ({count_words(peer.count('chunks'), 'chunk')}{caught})"
        status = _STATUS.get(peer.text("status"), "")
        lines.append(f"- `{_code(peer.text('name') or short_id(peer.text('peer_id')))}` {role}{sent}.{status}")
    return "\n".join(lines)


def _checks(fields: Fields) -> str:
    chunks = fields.counts("chunks")
    verified, rejected = chunks.get("verified", 0), chunks.get("rejected", 0)
    if fields.objects("spans"):
        return "\n".join([_spans(fields), *([_of_lanes(chunks)] if verified or rejected else [])])
    if fields.text("mode") == "local" or not (verified or rejected):
        return "Everything was computed on this device; there were no results from peers to check."
    return _of_lanes(chunks)


def _of_lanes(chunks: Mapping[str, int]) -> str:
    """What became of the results of single units."""
    verified, rejected = chunks.get("verified", 0), chunks.get("rejected", 0)
    lines = [f"- {count_words(verified, 'result')} from peers: each was checked before it was used, and was right."]
    if rejected:
        lines.append(f"- {count_words(rejected, 'wrong result')} refused and computed again.")
    for name, words in (
        ("hedged", "late, so also computed here"),
        ("lost", "lost with a peer and computed elsewhere"),
        ("local", "computed on this device"),
    ):
        if chunks.get(name):
            lines.append(f"- {count_words(chunks[name], 'chunk')}: {words}.")
    lines.append("- None of this changes the text: this device alone would have written the same.")
    return "\n".join(lines)


def _spans(fields: Fields) -> str:
    """Which device computed which layers, and what was computed again."""
    lines = []
    for span in fields.objects("spans"):
        where = _code(span.text("name") or short_id(span.text("peer_id")))
        who = f"`{where}`" if span.text("peer_id") else "This device"
        if span.text("lent"):
            who = f"Devices of others, in {span.text('lent')},"
        direct = span.count("direct")
        way = f"; {count_words(direct, 'step')} came to it straight from the device before" if direct else ""
        lines.append(f"- {who} computed layers {span.count('first')} to {span.count('end') - 1}{way}.")
    again = fields.object("rechecked")
    rows, equal, wrong, elsewhere, differ = map(again.count, ("rows", "equal", "wrong", "elsewhere", "differ"))
    if differ:
        lines.append(
            f"- Results that came out differently when another device computed them again: {differ}. "
            "Neither device is used any more: this one cannot tell which is wrong."
        )
    if wrong:
        lines.append(f"- Wrong results found when they were computed again here: {wrong}. The device is banned.")
    elif equal and not differ:
        where = (
            "here" if not elsewhere else "by another device" if elsewhere == equal else "here and by another device"
        )
        lines.append(
            f"- {count_words(equal, 'result')} of {rows} were computed again {where}, chosen in secret: "
            "each was the same to the last bit."
        )
    elif not differ:
        lines.append("- No result has been computed again.")
    return "\n".join(lines)


def _cost(fields: Fields) -> str:
    traffic = fields.object("bytes")
    reason = _REASONS.get(fields.text("finish_reason"), "")
    lines = [
        f"- {count_words(fields.count('prompt_tokens'), 'token')} read, "
        f"{count_words(fields.count('tokens'), 'token')} written. {reason}",
        f"- First token after {duration_words(fields.number('ttft_s'))}, then {fields.number('tokens_per_s'):.1f} "
        "tokens a second.",
    ]
    if traffic.count("up") or traffic.count("down"):
        lines.append(f"- {bytes_words(traffic.count('up'))} sent, {bytes_words(traffic.count('down'))} received.")
    pads = fields.object("pads")
    if pads.count("rows"):
        lines.append(f"- {count_words(pads.count('rows'), 'pad')} made here beforehand.")
    lines.append(f"- Model `{_code(fields.text('model'))}`, id `{_code(fields.text('model_id')[:16])}…`.")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text from outside, escaped so that it is not read as Markdown."""
    return "".join(f"\\{character}" if character in "\\`*_[]<>#|!" else character for character in text)


def _code(text: str) -> str:
    """Text from outside, safe between backticks."""
    return text.replace("`", "'").replace("\n", " ")
