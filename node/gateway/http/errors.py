"""Errors in the form of the API that was asked: OpenAI's, Anthropic's or Ollama's."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from node.engine.engine import QueueFullError
from node.errors import (
    ConfigError,
    KekahydeError,
    ModelNotFoundError,
    PromptError,
    PromptTooLongError,
)

PRIVACY_HEADER = "X-Kekahyde-Privacy"
MESSAGES_PATH = "/v1/messages"


class ApiError(Exception):
    """A refused request; its `str` is the sentence for the user."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = headers or {}

    def as_json(self, path: str = "") -> dict[str, Any]:
        """The JSON object that is sent to who asked for a path."""
        if path.startswith(MESSAGES_PATH):
            return {"type": "error", "error": {"type": _type_of(self.status, "api_error"), "message": str(self)}}
        if path.startswith("/api/"):
            return {"error": str(self)}
        return {
            "error": {"message": str(self), "type": _type_of(self.status), "param": self.param, "code": self.code}
        }

    def as_response(self, path: str = "") -> web.Response:
        """The whole HTTP answer."""
        return web.json_response(self.as_json(path), status=self.status, headers=self.headers)


def invalid(message: str, param: str) -> ApiError:
    """A field has a value that it cannot have."""
    return ApiError(400, message, "invalid_value", param)


def unsupported(message: str, param: str) -> ApiError:
    """A field asks for something that cannot be done here."""
    return ApiError(400, message, "unsupported_parameter", param)


def _type_of(status: int, failed_here: str = "server_error") -> str:
    """OpenAI's name for a kind of failure; Anthropic has the same but for what failed here."""
    known = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
    return known.get(status, "invalid_request_error" if status < 500 else failed_here)


def api_error_of(error: KekahydeError) -> ApiError:
    """The error that the client gets for a failure of the node."""
    match error:
        case QueueFullError():
            return ApiError(429, str(error), "queue_full", headers={"Retry-After": "1"})
        case ModelNotFoundError():
            return ApiError(404, str(error), "model_not_found", "model")
        case PromptTooLongError():
            return ApiError(400, str(error), "context_length_exceeded")
        case PromptError() | ConfigError():
            return ApiError(400, str(error), "invalid_value")
        case _:
            return ApiError(500, str(error), "node_error")
