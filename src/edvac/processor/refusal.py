"""What an answer other than 200 means, as an error of the tree."""

from __future__ import annotations

import email.utils
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edvac.core.errors import ConfigError, OperandError, ProcessorError

MAX_REFUSAL = 64 * 1024  # bytes read of an error's text

# Parts of a request that some endpoints refuse; what one refuses, it is not sent again.
OPTIONAL = (
    "response_format",
    "grammar",
    "structured_outputs",
    "stream_options",
    "seed",
    "max_tokens",
    "temperature",
    "stop",
)
_OTHER_WORDS = {
    "response_format": ("schema", "json_object"),
    "grammar": ("lark", "failed to parse grammar"),
}
_CONTEXT = ("context length", "context size", "context window", "context_length", "maximum context")


class Unsupported(Exception):
    """The endpoint refuses a part of the request that it can do without."""

    def __init__(self, part: str) -> None:
        super().__init__(part)
        self.part = part


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal as it came.

    Attributes:
        endpoint: scheme and host; `model` and `key_place` are for what to do about it.
        shown: its text, without the key.
    """

    endpoint: str
    model: str
    key_place: str
    status: int
    shown: str
    headers: Mapping[str, str]

    def error(self, body: Mapping[str, Any], *, key_sent: bool) -> Exception:
        """
        Args:
            body: what was sent.
        """
        low, text = self.shown.lower(), self.shown[:200]
        if self.status in (400, 422):
            for part in OPTIONAL:
                words = (part, *_OTHER_WORDS.get(part, ()))
                if part in body and any(word in low for word in words):
                    return Unsupported(part)
        if self.status == 413 or (self.status == 400 and any(word in low for word in _CONTEXT)):
            return OperandError(
                "operand_too_large",
                "the prompt does not fit the endpoint's context",
                text,
                "Split the data into smaller parts.",
            )
        if self.status == 402 or (self.status == 429 and "insufficient_quota" in low):
            return ConfigError(
                "endpoint_quota",
                f"{self.endpoint} says that the account has nothing left",
                text,
                "Pay or wait, then `edvac resume --retry`; or use another model.",
            )
        if self.status in (429, 503):
            return ProcessorError(
                "endpoint_busy",
                f"{self.endpoint} is asked too much, or not ready yet (status {self.status})",
                text,
                "It is asked again later; lower `at_once` where this happens often.",
            )
        if self.status in (408, 409, 425) or self.status >= 500:
            return ProcessorError(
                "endpoint_away",
                f"{self.endpoint} answered with status {self.status}",
                text,
                "Is it running, and is it free?",
            )
        if self.status in (401, 403):
            return ConfigError(
                "endpoint_key",
                f"{self.endpoint} refused the key",
                f"It was read from {self.key_place}." if key_sent else "No key was sent.",
                f"Set {self.key_place}, or put the key into keys.toml beside your settings.",
            )
        return ConfigError(
            "endpoint_refused",
            f"{self.endpoint} answered with status {self.status}",
            text,
            f"Check the address and the model's name, {self.model!r}.",
        )

    @property
    def wait_s(self) -> float | None:
        """Seconds that it asks to be left alone; None where it does not say."""
        found = self.headers.get("retry-after", "").strip()
        if found.isascii() and found.isdecimal():
            return float(found[:9])
        try:
            until = email.utils.parsedate_to_datetime(found)
            now = email.utils.parsedate_to_datetime(self.headers.get("date", ""))
            return max(0.0, (until - now).total_seconds())
        except (ValueError, TypeError):
            return None
