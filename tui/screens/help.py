"""Help: this screen first, then every key, then what the signs and modes mean."""

from __future__ import annotations

from tui.screens.sheet import TextScreen
from tui.words import CHUNK_SIGNS, CHUNK_WORDS, MODES, PEER_SIGNS

_KEYS = (
    ("Enter", "send; without text: go on, or try the first example"),
    ("ctrl+j", "new line (also shift+Enter where the terminal tells it apart)"),
    ("Esc", "close what is on top, stop the answer, clear a filter: in this order"),
    ("ctrl+r", "answer the last prompt anew"),
    ("ctrl+y / ctrl+o", "copy the last answer / its last code block; text can be selected with the mouse"),
    ("ctrl+n", "new conversation; nothing of the old one is kept"),
    ("F8", "receipt: who saw what"),
    ("F7", "privacy mode"),
    ("F1 … F6", "help, chat, peers, models, chunks, logs; the line at the top takes clicks"),
    ("ctrl+p", "palette: every command, and themes"),
    ("ctrl+c", "stop the answer; twice: quit"),
    ("ctrl+q", "quit (`q` where nothing is typed); ends the node if it was started here"),
)


class HelpScreen(TextScreen):
    """Everything that a person may want to know here."""

    def __init__(self, mode: str, about: str) -> None:
        super().__init__("Help", help_markdown(mode, about))


def help_markdown(mode: str, about: str) -> str:
    """The help text for one screen."""
    keys = "\n".join(f"- **{key}**: {what}" for key, what in _KEYS)
    modes = "\n".join(f"- `{name}`: {what}" for name, what in MODES.items())
    peers = ", ".join(f"{sign} {word}" for word, sign in PEER_SIGNS.items())
    chunks = "\n".join(f"- `{CHUNK_SIGNS[state]}` {state}: {CHUNK_WORDS[state]}" for state in CHUNK_WORDS)
    return (
        f"## {mode.capitalize()}\n\n{about}\n\n## Keys\n\n{keys}\n\n## Privacy modes\n\n{modes}\n\n"
        "A request never falls to a weaker mode than it asked for.\n\n"
        f"## Signs\n\nPeers: {peers}.\n\nA chunk is a piece of one layer's work that one peer does:\n\n{chunks}\n"
    )
