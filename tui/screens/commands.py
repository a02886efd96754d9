"""Commands that are typed in the prompt: `/help` and friends."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """A command and the action of the application or of the chat that does it."""

    action: str
    about: str


COMMANDS = {
    "help": Command("app.help", "every key and command"),
    "new": Command("screen.forget", "begin a new conversation (ctrl+n)"),
    "list": Command("screen.conversations", "all conversations: search, go on, name, export (ctrl+l)"),
    "keep": Command("screen.keep", "keep this conversation on the disk, or no longer"),
    "again": Command("screen.regenerate", "answer the last prompt again (ctrl+r)"),
    "drop": Command("screen.drop_oldest", "send the older half of the turns no longer (ctrl+t)"),
    "programs": Command("app.programs", "the node's address for other programs"),
    "receipt": Command("screen.receipt", "who saw what (F8)"),
    "privacy": Command("app.privacy", "privacy mode of the next prompts (F7)"),
    "settings": Command("app.settings", "system prompt, temperature, length (F9)"),
    "model": Command("app.switch_mode('models')", "choose or fetch a model (F4)"),
    "peers": Command("app.switch_mode('peers')", "invite, join, name, pair, ban (F3)"),
    "quit": Command("app.quit", "quit (ctrl+q)"),
}


def is_command(prompt: str) -> bool:
    """Whether a prompt is a command: one line that begins with a slash and a letter."""
    return prompt.startswith("/") and prompt[1:2].isalpha() and "\n" not in prompt and " " not in prompt.strip()


def action_of(prompt: str) -> str | None:
    """The action of a command; None if there is no such command."""
    found = COMMANDS.get(prompt.strip()[1:].casefold())
    return None if found is None else found.action


def unknown(prompt: str) -> str:
    """What to say about a command that does not exist."""
    names = " ".join(f"/{name}" for name in COMMANDS)
    return f"There is no command {prompt.strip()[:32]}. There are {names}. A space before the / sends it as text."
