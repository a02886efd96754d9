"""The receipt of an answer, shown on top of the chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tui.receipt_words import receipt_markdown
from tui.screens.sheet import TextScreen


class ReceiptScreen(TextScreen):
    """Shows who saw what of one answer."""

    def __init__(self, receipt: Mapping[str, Any], plan: str) -> None:
        super().__init__("Receipt", receipt_markdown(receipt, plan))
