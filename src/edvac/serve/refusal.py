"""Errors as clients of OpenAI's interface read them: a status, a body and headers."""

from __future__ import annotations

import math
from typing import Any, Final

from starlette.responses import JSONResponse

from edvac.core.errors import (
    EdvacError,
    ModelOutputError,
    OperandError,
    TransientError,
    UsageError,
)

# Codes whose status does not follow from the class of their error.
_STATUS: Final = {
    "adapter_path": 403,
    "address_unknown": 404,
    "client_gone": 499,
    "engine_overloaded": 429,
    "host_unknown": 403,
    "key_wrong": 401,
    "method_wrong": 405,
    "model_not_found": 404,
    "origin_unknown": 403,
    "request_slow": 408,
    "request_too_long": 413,
    "service_busy": 429,
}
_KINDS: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
# As OpenAI's clients know them.
_CODES: Final = {"operand_too_large": "context_length_exceeded"}
_WAIT_S: Final = 1.0  # before a call that was refused for want of room is worth trying again


def status_of(error: EdvacError) -> int:
    found = _STATUS.get(error.code)
    if found is not None:
        return found
    if isinstance(error, UsageError | OperandError | ModelOutputError):
        return 400
    return 503 if isinstance(error, TransientError) else 500


def body_of(error: EdvacError) -> dict[str, Any]:
    """The document that an error is told in, whole or as the last event of a stream."""
    status = status_of(error)
    kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    code = _CODES.get(error.code, error.code)
    message = str(error)
    if error.code == "operand_too_large":  # what to do about it in a program helps nobody here
        message = f"{error.what}\n{error.why}\nSend less, or ask for fewer tokens."
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def refused(error: EdvacError) -> JSONResponse:
    status = status_of(error)
    headers = {}
    if status in (429, 503):
        wait = error.wait_s if isinstance(error, TransientError) else 0.0
        headers["Retry-After"] = str(math.ceil(wait or _WAIT_S))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body_of(error), status, headers)
