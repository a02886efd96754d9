"""Markdown written by a model: single line ends count, HTML is text, and a link is shown and copied, never opened."""

from __future__ import annotations

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from textual import on
from textual.widget import Widget
from textual.widgets import Markdown

from tui.words import link_notice


def _keep_line_ends(state: StateCore) -> None:
    for token in state.tokens:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"


def make_parser() -> MarkdownIt:
    """The parser for answers."""
    parser = MarkdownIt("gfm-like", {"html": False})
    parser.core.ruler.push("keep_line_ends", _keep_line_ends)
    return parser


class ModelMarkdown(Markdown):
    """A piece of an answer."""

    BULLETS = ["• ", "‣ ", "◦ "]  # noqa: RUF012 - declared by the parent

    def __init__(self, text: str | None = None) -> None:
        super().__init__(text, parser_factory=make_parser, open_links=False)

    @on(Markdown.LinkClicked)
    def _show_link(self, event: Markdown.LinkClicked) -> None:
        event.stop()
        show_link(self, event.href)


def show_link(widget: Widget, address: str) -> None:
    """Show the address of a link, and put it on the clipboard."""
    widget.app.copy_to_clipboard(address)
    widget.app.notify(link_notice(address), title="Link copied", markup=False)
