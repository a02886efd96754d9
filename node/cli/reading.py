"""What `run` was asked, as a model reads it: a text to go on from, or a conversation by the model's template."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import click

from node.cli.on_node import asked_of
from node.cli.turns import Message
from node.engine import GenerationRequest
from node.engine.drafts import check_draft
from node.errors import PromptError
from node.model.generate import check_prompt
from node.model.sampling import SamplingParams
from node.planning.placement import Lend
from node.privacy import Privacy
from node.store.stored import StoredModel

if TYPE_CHECKING:
    from node.model.template import ChatTemplate  # Jinja: only who chats loads it

Asked = str | list[Message]
"""A text to go on from, or the messages of a chat."""


class Reading:
    """How a model reads what is asked in one run, and how it is to answer."""

    def __init__(
        self,
        model: StoredModel,
        params: SamplingParams,
        privacy: Privacy,
        lend: Lend,
        is_chat: bool,
        speculate: int | None = None,
        draft: StoredModel | None = None,
        pad_output: int = 0,
    ) -> None:
        """
        Raises:
            PromptError: the draft cannot guess for this model.
        """
        if draft is not None:
            check_draft(draft, model)
        self._model = model
        self._params = params
        self._privacy = privacy
        self._lend = lend
        self._is_chat = is_chat
        self._speculate = speculate
        self._draft = draft
        self._pad_output = pad_output
        self._conversation = f"run {secrets.token_hex(8)}"

    def check(self, text: str | None) -> None:
        """Check, before anything starts, that this can be answered; None: a chat.

        Raises:
            PromptError: it cannot.
            UsageError: the model cannot chat, and there is no prompt.
        """
        if text is None and self._model.chat_template is None:
            raise click.UsageError(f"give a PROMPT: the model {self._model.name} has no chat template")
        if self._is_chat:
            self._template()
        if text is not None:
            self.prompt_ids(self.of(text))

    def of(self, text: str) -> Asked:
        return [{"role": "user", "content": text}] if self._is_chat else text

    def prompt_ids(self, asked: Asked) -> list[int]:
        """Tokens. Raises PromptError."""
        tokenizer = self._model.tokenizer()
        if isinstance(asked, str):
            ids = tokenizer.encode(asked)
        else:
            ids = tokenizer.encode(self._template().render(asked), add_special=False)
        check_prompt(ids, self._model.config, tokenizer)
        return ids

    def request(self, asked: Asked) -> GenerationRequest:
        """For an engine of this process."""
        ids, continues = tuple(self.prompt_ids(asked)), isinstance(asked, str)
        return GenerationRequest(
            "run",
            self._model,
            ids,
            self._params,
            self._privacy,
            continues,
            self._lend,
            conversation=self._conversation,
            speculate=self._speculate,
            draft=self._draft,
            pad_output=self._pad_output,
        )

    def for_node(self, asked: Asked) -> dict[str, Any]:
        """For the node that runs; a text to go on from travels as its tokens."""
        ids = self.prompt_ids(asked)
        prompt = {"prompt": ids} if isinstance(asked, str) else {"messages": asked}
        fields = asked_of(self._model, prompt, self._params, self._privacy, self._lend)
        speculate = "auto" if self._speculate is None else self._speculate or "off"
        named = {} if self._draft is None else {"draft": self._draft.model_id}
        ours = {"speculate": speculate, "pad_output": self._pad_output, **named}
        return fields | ours | {"prompt_cache_key": self._conversation}

    def _template(self) -> ChatTemplate:
        template = self._model.chat_template
        if template is None:
            raise PromptError(f"the model {self._model.name} has no chat template: leave out --chat")
        return template
