"""From messages to the segments of a prompt, by the chat template that the model's file brings.

The template is rendered once with placeholders where the contents go; what lies between the
placeholders is the template's own text, in which special tokens count. Contents, descriptions of
functions and calls are never parsed for special tokens, so a document that contains ``<|im_end|>``
ends nothing. The template itself comes from a file that may be hostile: it runs in a sandboxed
environment without access to anything.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import resource
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edvac.core.errors import ModelFileError
from edvac.engine.protocol import Segment
from edvac.processor.port import Message, ToolCall, Tools
from edvac.processor.port import Segment as PortSegment
from edvac.processor.tools import as_text, described, knows_tools

MAX_TEMPLATE = 64 * 1024
MAX_MEMORY = 512 << 20  # bytes beyond what the process has mapped
MAX_STEPS = 2_000_000  # lines of Python for reading and rendering a template
REMEMBERED = 64 * 1024  # characters of a shape that is worth keeping in memory
_PLACE = re.compile("\ue000(\\d+)\ue001")
_WORD = re.compile(r"[A-Za-z0-9_$.-]{0,64}")  # templates look at keys and types; no special token
_PIECE = re.compile("\ue000(\\d+)\ue001|\ue002(.*?)\ue003", re.DOTALL)

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
    tools: Tools | None = None,
) -> list[Segment]:
    """The prompt as segments: template text as control, contents as data.

    Raises:
        ModelFileError: the template cannot be rendered.
    """
    form = _Form(template or _PLAIN, tuple(sorted(special.items())))
    if not knows_tools(form.template):
        messages, tools = as_text(messages, tools), None
    messages = _fitting(form, messages)
    texts = [message.text for message in messages]
    text = form.outline(_shape(messages, tools, texts))
    found: list[Segment] = []
    last = 0
    for piece in _PIECE.finditer(text):
        if piece.start() > last:
            found.append(Segment(text[last : piece.start()], control=True))
        last = piece.end()
        if piece.group(2) is not None:
            found.append(Segment(_filled(piece.group(2), texts)))
        elif (number := int(piece.group(1))) < len(messages):
            found += [Segment(s.text, keep=s.keep) for s in messages[number].segments if s.text]
        elif number < len(texts):
            found.append(Segment(texts[number]))
        else:
            raise _broken("it makes up texts")
    if last < len(text):
        found.append(Segment(text[last:], control=True))
    if prefill:
        found.append(Segment(prefill))
    return found


@dataclass(frozen=True, slots=True)
class _Form:
    template: str
    special: tuple[tuple[str, str], ...]

    def outline(self, shape: str) -> str:
        make = _outline if len(shape) <= REMEMBERED else _outline.__wrapped__
        return make(self.template, self.special, shape)


def _fitting(form: _Form, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages; the system's text is put before the user's where a template knows no system."""
    if tuple(message.role for message in messages[:2]) != ("system", "user"):
        return messages
    try:
        form.outline(_shape(messages, None, [message.text for message in messages]))
    except ModelFileError:
        first, second, *rest = messages
        joined = (*first.segments, PortSegment("\n\n"), *second.segments)
        return (Message("user", joined), *rest)
    return messages


def _shape(messages: tuple[Message, ...], tools: Tools | None, texts: list[str]) -> str:
    """Messages and functions as JSON, with a numbered placeholder for each text of theirs that is
    more than a word. `texts` holds the contents, to which the other texts are appended."""

    def place(value: Any) -> Any:
        match value:
            case str() if not _WORD.fullmatch(value):
                texts.append(value)
                return f"\ue000{len(texts) - 1}\ue001"
            case dict():
                return {place(key): place(one) for key, one in value.items()}
            case list():
                return [place(one) for one in value]
        return value

    shown: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        silent = message.calls and not message.text
        one: dict[str, Any] = {
            "role": message.role,
            "content": "" if silent else f"\ue000{number}\ue001",
        }
        if message.calls:
            one["tool_calls"] = [_call(call, place) for call in message.calls]
        shown.append(one)
    functions = [described(place(one)) for one in tools.functions] if tools else None
    return json.dumps([shown, functions])


def _call(call: ToolCall, place: Callable[[Any], Any]) -> dict[str, Any]:
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        arguments = call.arguments
    return described({"name": place(call.name), "arguments": place(arguments)})


def _filled(text: str, texts: list[str]) -> str:
    """What a template wrote as JSON, with the texts at their places."""
    try:
        value, indent = json.loads(text)
        return json.dumps(_restored(value, texts), ensure_ascii=False, indent=indent)
    except _WRONG as problem:
        raise _broken(f"{type(problem).__name__}: {problem}") from problem


def _restored(value: Any, texts: list[str]) -> Any:
    match value:
        case str():
            return _PLACE.sub(lambda place: texts[int(place.group(1))], value)
        case dict():
            return {_restored(key, texts): _restored(one, texts) for key, one in value.items()}
        case list():
            return [_restored(one, texts) for one in value]
    return value


@functools.lru_cache(maxsize=256)
def _outline(template: str, special: tuple[tuple[str, str], ...], shape: str) -> str:
    """The template's own text with a numbered placeholder for each text of others."""
    if len(template) > MAX_TEMPLATE:
        raise _broken(f"it has {len(template)} characters")
    environment = _Environment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _refuse
    environment.filters["tojson"] = _as_json
    names = dict(special)
    messages, tools = json.loads(shape)
    try:
        with _step_limit(), _memory_limit():
            text = environment.from_string(template).render(
                messages=messages, add_generation_prompt=True, tools=tools, **names
            )
    except _WRONG as problem:
        raise _broken(f"{type(problem).__name__}: {problem}") from problem
    contents = [number for number, one in enumerate(messages) if one["content"]]
    if [int(one) for one in _PLACE.findall(text) if int(one) < len(messages)] != contents:
        raise _broken("it does not keep the messages in order")
    return text


def _as_json(value: Any, indent: int | None = None) -> str:
    """The filter ``tojson``; what it makes is data, whatever is in it."""
    return f"\ue002{json.dumps([value, indent], ensure_ascii=False)}\ue003"


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
