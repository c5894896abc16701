"""From messages to the segments of a prompt, by the chat template that the model's file brings.

The template is rendered once with placeholders where the contents go; what lies between the
placeholders is the template's own text, in which special tokens count. Contents are never parsed
for special tokens, so a document that
contains ``<|im_end|>`` ends nothing. The template itself comes from a file that may be hostile: it
runs in a sandboxed environment without access to anything.
"""

from __future__ import annotations

import contextlib
import functools
import re
import resource
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edvac.core.errors import ModelFileError
from edvac.engine.protocol import Segment
from edvac.processor.port import Message
from edvac.processor.port import Segment as PortSegment

MAX_TEMPLATE = 64 * 1024
MAX_MEMORY = 512 << 20  # bytes beyond what the process has mapped
MAX_STEPS = 2_000_000  # lines of Python for reading and rendering a template
_PLACE = re.compile("\ue000(\\d+)\ue001")

# For a model file that brings no template.
_PLAIN = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def render(
    template: str | None,
    special: Mapping[str, str],
    messages: tuple[Message, ...],
    prefill: str = "",
) -> list[Segment]:
    """The prompt as segments: template text as control, contents as data.

    Raises:
        ModelFileError: the template cannot be rendered.
    """
    messages = _fitting(template or _PLAIN, special, messages)
    shape = tuple(message.role for message in messages)
    found: list[Segment] = []
    text = _outline(template or _PLAIN, tuple(sorted(special.items())), shape)
    last = 0
    for place in _PLACE.finditer(text):
        if place.start() > last:
            found.append(Segment(text[last : place.start()], control=True))
        segments = messages[int(place.group(1))].segments
        found += [Segment(s.text, keep=s.keep) for s in segments if s.text]
        last = place.end()
    if last < len(text):
        found.append(Segment(text[last:], control=True))
    if prefill:
        found.append(Segment(prefill))
    return found


def _fitting(
    template: str, special: Mapping[str, str], messages: tuple[Message, ...]
) -> tuple[Message, ...]:
    """The messages; the system's text is put before the user's where a template knows no system."""
    shape = tuple(message.role for message in messages)
    if shape[:2] != ("system", "user"):
        return messages
    try:
        _outline(template, tuple(sorted(special.items())), shape)
    except ModelFileError:
        first, second, *rest = messages
        joined = (*first.segments, PortSegment("\n\n"), *second.segments)
        return (Message("user", joined), *rest)
    return messages


@functools.lru_cache(maxsize=256)
def _outline(template: str, special: tuple[tuple[str, str], ...], roles: tuple[str, ...]) -> str:
    """The template's own text with a numbered placeholder for each message's content."""
    if len(template) > MAX_TEMPLATE:
        raise _broken(f"it has {len(template)} characters")
    environment = _Environment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _refuse
    messages = [
        {"role": role, "content": f"\ue000{number}\ue001"} for number, role in enumerate(roles)
    ]
    try:
        with _step_limit(), _memory_limit():
            text = environment.from_string(template).render(
                messages=messages, add_generation_prompt=True, tools=None, **dict(special)
            )
    except _WRONG as problem:
        raise _broken(f"{type(problem).__name__}: {problem}") from problem
    if [int(number) for number in _PLACE.findall(text)] != list(range(len(roles))):
        raise _broken("it does not keep the messages in order")
    return text


class _Environment(ImmutableSandboxedEnvironment):
    """No attributes of Python's, no changes to values, and no products of astronomic size."""

    intercepted_binops = frozenset(("*", "**", "%"))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if not numbers or operator == "**" or max(abs(left), abs(right)) > 2**31:
            raise jinja2.TemplateError(f"it computes {operator} of things it need not")
        return super().call_binop(context, operator, left, right)


@contextlib.contextmanager
def _step_limit() -> Iterator[None]:
    """Let what runs in here take so many lines of Python and no more."""
    left = MAX_STEPS

    def count(frame: FrameType, kind: str, argument: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise jinja2.TemplateError("it does not end")
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)


_limiting = threading.Lock()


@contextlib.contextmanager
def _memory_limit() -> Iterator[None]:
    """Let what runs in here map so much more memory: one step can double a text, or pad it to any
    width. For that long the bound is the process's, which nothing else comes near."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:  # no Linux: the bound of steps has to do
        yield
        return
    with _limiting:
        before, most = resource.getrlimit(resource.RLIMIT_AS)
        wanted = pages * resource.getpagesize() + MAX_MEMORY
        limits = [one for one in (before, most) if one != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_AS, (min([wanted, *limits]), most))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (before, most))


# What a template can make Python raise.
_WRONG = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _broken(why: str) -> ModelFileError:
    return ModelFileError(
        "chat_template_broken",
        "the model's chat template cannot be used",
        why[:300],
        "Fetch the model again, or use another one.",
    )
