"""The text of an empty conversation."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from tui.session import NodeSession
from tui.words import count_words

STORY_EXAMPLES = (
    "Once upon a time, there was a little robot who",
    "Lily and her dog found a big red box in the garden.",
    "One day, the moon came down to play.",
)
CHAT_EXAMPLES = (
    "Explain how a laptop can compute without seeing the numbers.",
    "Write a short poem about a lighthouse.",
    "What should I know before planting tomatoes?",
)


class Welcome(Static):
    """The text of an empty conversation: what to do first, and who would help."""

    def __init__(self) -> None:
        super().__init__(id="welcome", markup=False)
        self._shown: tuple[object, ...] = ()

    def show(self, session: NodeSession) -> None:
        model = session.model
        chat, helpers = model is not None and model.chat, session.state.helpers
        shown = (chat, helpers, session.model_name, session.link)
        if shown == self._shown:
            return
        self._shown = shown
        what = (
            f"The model {session.model_name} answers questions."
            if chat
            else f"The model {session.model_name} continues stories: type a beginning and it writes the rest."
        )
        who = (
            f"{count_words(helpers, 'peer')} can help; no single peer can read what you write."
            if helpers
            else "No peers yet: this device answers alone. F3 says how to add some."
        )
        examples = "\n".join(
            Content.from_markup(f"  [@click=screen.example({number})]› $text[/]", text=text).markup
            for number, text in enumerate(CHAT_EXAMPLES if chat else STORY_EXAMPLES)
        )
        self.update(
            Content.from_markup(
                f"[b]$what[/]\n$who\n\nPress [b]Enter[/] to try the first of these, or click one:\n{examples}\n\n"
                "[dim]No prompt and no answer is written to a disk, unless you type /keep. F1 explains, ctrl+q quits."
                "[/]",
                what=what,
                who=who,
            )
        )
