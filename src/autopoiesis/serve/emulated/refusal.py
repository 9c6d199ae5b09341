"""Why a call is not answered, in the form that OpenAI clients expect."""

from __future__ import annotations

import msgspec

TYPES = {400: "BadRequestError", 404: "NotFoundError", 503: "ServiceUnavailableError"}
"""By status, as vLLM names them; others are `InvalidRequestError`."""


class Refusal(Exception):
    """An answer with an error status. The message never repeats what the client has sent."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param

    @property
    def body(self) -> bytes:
        kind = TYPES.get(self.status, "InvalidRequestError")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.status}
        return msgspec.json.encode({"error": error})
