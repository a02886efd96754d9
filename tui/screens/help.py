"""Help: first this screen, then every key, then the meaning of signs and modes."""

from __future__ import annotations

from tui.screens.commands import COMMANDS
from tui.screens.sheet import TextScreen
from tui.words import CHUNK_SIGNS, CHUNK_WORDS, MODES, PEER_SIGNS

_KEYS = (
    ("Enter", "send; without text: continue, or try the first example"),
    ("ctrl+j", "new line (also shift+Enter if the terminal supports it)"),
    ("Esc", "close the top window, stop the answer, or clear a filter, in this order"),
    ("ctrl+r", "answer the last prompt again; alt+← and alt+→ show the other answers"),
    ("ctrl+y / ctrl+o", "copy the last answer / its last code block; text can be selected with the mouse"),
    ("ctrl+n", "new conversation; the old one stays in the list"),
    ("ctrl+l", "all conversations: search, go on, name, keep on disk, export, delete"),
    ("ctrl+t", "if the conversation is too long: the model reads the older half no longer"),
    ("/help …", "commands that can be typed: " + " ".join(f"/{name}" for name in COMMANDS)),
    ("F8", "receipt: who saw what"),
    ("F7", "privacy mode of the next prompts"),
    ("F9", "settings: system prompt, temperature, length"),
    ("F1 … F6", "help, chat, peers, models, chunks, logs; or click the line at the top"),
    ("ctrl+p", "palette: every command, and themes"),
    ("ctrl+c", "stop the answer; twice: quit"),
    ("ctrl+q", "quit (or `q` where you cannot type); ends the node if it was started here"),
)


class HelpScreen(TextScreen):
    """The help for one screen."""

    def __init__(self, mode: str, about: str, gateway: str) -> None:
        super().__init__("Help", help_markdown(mode, about, gateway))


def help_markdown(mode: str, about: str, gateway: str) -> str:
    """The help text for one screen.

    Args:
        gateway: the node's address for programs; empty if it has none.
    """
    keys = "\n".join(f"- **{key}**: {what}" for key, what in _KEYS)
    modes = "\n".join(f"- `{name}`: {what}" for name, what in MODES.items())
    peers = ", ".join(f"{sign} {word}" for word, sign in PEER_SIGNS.items())
    chunks = "\n".join(f"- `{CHUNK_SIGNS[state]}` {state}: {CHUNK_WORDS[state]}" for state in CHUNK_WORDS)
    return (
        f"## {mode.capitalize()}\n\n{about}\n\n## Keys\n\n{keys}\n\n## Privacy modes\n\n{modes}\n\n"
        "A request never falls to a weaker mode than it asked for.\n\n"
        f"## Programs\n\n{programs_markdown(gateway)}\n\n"
        f"## Signs\n\nPeers: {peers}.\n\nA chunk is a piece of one layer's work that one peer does:\n\n{chunks}\n"
    )


def programs_markdown(gateway: str) -> str:
    """How programs reach this node; `gateway` is its address, empty if it has none."""
    if not gateway:
        return "This node has no address for programs: it was started with `--no-gateway`."
    return (
        "Programs on this device use this node too; the key is any text.\n\n"
        f"- OpenAI's clients, Open WebUI, aider: `{gateway}/v1`\n"
        f"- Anthropic's and Ollama's clients: `{gateway}`\n"
        f"- Python: `OpenAI(base_url='{gateway}/v1', api_key='any')`\n"
        f"- Open WebUI: `kekahyde-node launch open-webui`, also for aider, claude, llm and continue\n"
        f"- Try it: `curl {gateway}/v1/models`"
    )
