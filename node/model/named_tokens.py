"""Special and added tokens in other files than `tokenizer.json`, read as `transformers` reads them.

`special_tokens_map.json`, the older form, overrides `tokenizer_config.json`, but is not read if that has the newer
form, which lists all added tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from node.errors import CorruptModelError
from node.json_file import read_bounded, read_json_object

TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_LISTED = "added_tokens_decoder"
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")

TEMPLATE_FILE = "chat_template.jinja"
MAX_TEMPLATE_BYTES = 1 << 20


def tokenizer_config(folder: Path) -> dict[str, Any]:
    """The merged content of both files."""
    config = _object(folder / TOKENIZER_CONFIG_FILE)
    return config if _LISTED in config else {**config, **_object(folder / SPECIAL_TOKENS_FILE)}


def special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens by role; the file gives a token as text or as the fields of an added token."""
    found = {role: _content(config.get(role)) for role in _roles(config)}
    return {role: content for role, content in found.items() if content is not None}


def added_tokens(config: Mapping[str, Any], where: Path) -> list[AddedToken]:
    """Every named token, in the order in which tokens that `tokenizer.json` lacks get the next ids.

    Raises:
        CorruptModelError: the list of added tokens is invalid; `where` names the model.
    """
    found: dict[str, AddedToken] = {}
    for token, is_special in _named(config, where):
        content = _content(token)
        if content:
            flags = {name: bool(token.get(name)) for name in _FLAGS} if isinstance(token, dict) else {}
            found.setdefault(content, AddedToken(content, special=is_special, **flags))
    return list(found.values())


def _named(config: Mapping[str, Any], where: Path) -> Iterator[tuple[Any, bool]]:
    listed = {} if config.get(_LISTED) is None else config[_LISTED]
    special = special_tokens(config).values()
    if not isinstance(listed, dict) or not all(
        token_id.isdecimal() and len(token_id) < 10 and isinstance(token, dict) and _content(token) is not None
        for token_id, token in listed.items()
    ):
        raise CorruptModelError(f"{where / TOKENIZER_CONFIG_FILE} has no valid {_LISTED}; fetch the model again")
    for _, token in sorted(listed.items(), key=lambda entry: int(entry[0])):
        yield token, token.get("special") is True or token["content"] in special
    for role in _roles(config):
        yield config.get(role), True
    for name in _LISTS:
        tokens = config.get(name)
        for token in tokens if isinstance(tokens, list) else ():
            yield token, True


def _roles(config: Mapping[str, Any]) -> list[str]:
    """The roles that every tokenizer may have, then the model's own."""
    own = (key for key, value in config.items() if key.endswith("_token") and isinstance(value, str))
    return [*ROLES, *(key for key in own if key not in ROLES)]


def _content(token: object) -> str | None:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _object(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no file."""
    return read_json_object(path) if path.exists() else {}


def template_source(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The text of a model's chat template; None if it has none. Raises CorruptModelError."""
    path = folder / TEMPLATE_FILE
    if path.exists():
        try:
            return read_bounded(path, MAX_TEMPLATE_BYTES).decode()
        except UnicodeDecodeError as exc:
            raise CorruptModelError(f"{path} is not UTF-8; fetch the model again") from exc
    source = config.get("chat_template")
    if isinstance(source, list):  # several named templates
        named = [
            entry.get("template") for entry in source if isinstance(entry, dict) and entry.get("name") == "default"
        ]
        source = named[-1] if named else None
    return source if isinstance(source, str) else None
