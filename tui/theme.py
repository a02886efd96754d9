"""Our two themes; the palette also has all of Textual's."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="kekahyde-dark",
    primary="#7aa2f7",
    secondary="#9ece6a",
    accent="#bb9af7",
    warning="#e0af68",
    error="#f7768e",
    success="#9ece6a",
    foreground="#d5d9e8",
    background="#14161f",
    surface="#1a1d29",
    panel="#232738",
    dark=True,
)
LIGHT = Theme(
    name="kekahyde-light",
    primary="#2e5aac",
    secondary="#3a7d34",
    accent="#7847bd",
    warning="#8f5e15",
    error="#b3264a",
    success="#3a7d34",
    foreground="#1f2330",
    background="#f6f6f9",
    surface="#eceef4",
    panel="#dfe2ec",
    dark=False,
)
THEMES = (DARK, LIGHT)
