"""Signatures of the model steps. What executes them is the processor; to a program they are a
device like others."""

from __future__ import annotations

from edvac.core.schema import ANY, INT, STR, Choice, ListOf
from edvac.core.signature import Effect, Param, Role, Signature
from edvac.program.extending import EXTEND

_DATA = Param("data", ANY, default=None, variadic=True, doc="values the model sees, as data")
_OVER = Param(
    "over",
    Choice(("refuse", "split", "retrieve", "summarise")),
    default="refuse",
    role=Role.INSTRUCTION,
    keyword_only=True,
    doc="what to do with data that does not fit the model's context",
)

SIGNATURES = (
    Signature(
        "llm.write",
        (Param("goal", STR, role=Role.INSTRUCTION, doc="what to write"), _DATA, _OVER),
        STR,
        Effect.PURE,
        "Let the model write a text.",
        timeout_s=1800.0,
    ),
    Signature(
        "llm.extract",
        (
            Param("data", ANY, doc="a text, or any value"),
            Param("T", ANY, role=Role.TYPE, doc="a record or a list of records"),
            Param("hint", STR, default="", role=Role.INSTRUCTION),
            _OVER,
        ),
        None,
        Effect.PURE,
        "Let the model fill in a record from data.",
        timeout_s=1800.0,
    ),
    Signature(
        "llm.choose",
        (
            Param("question", STR, role=Role.INSTRUCTION),
            Param("options", ListOf(STR), role=Role.INSTRUCTION),
            _DATA,
            _OVER,
        ),
        STR,
        Effect.PURE,
        "Let the model choose one of the options.",
        timeout_s=1800.0,
    ),
    Signature(
        "llm.do",
        (
            Param("goal", STR, role=Role.INSTRUCTION, doc="what to find out"),
            Param(
                "functions",
                ListOf(STR),
                role=Role.INSTRUCTION,
                doc="what the worker may call, such as files.read; only what reads or computes",
            ),
            Param("budget", INT, doc="tokens that it may use; 0 is no limit of its own"),
            Param("T", ANY, role=Role.TYPE, doc="type of what it returns"),
            _DATA,
            Param(
                "reads",
                ListOf(STR),
                ["**"],
                role=Role.ADDRESS,
                keyword_only=True,
                glob=True,
                doc="the only paths that it may read",
            ),
        ),
        None,
        Effect.READ,
        "Let a worker find something out, turn by turn, with functions that it may call.",
        reads=("reads",),
        timeout_s=3600.0,
        planned=False,  # plans that use it have not been measured yet
        journal=True,
    ),
    Signature(
        EXTEND,
        (
            Param("goal", STR, role=Role.INSTRUCTION, doc="what the further lines are to do"),
            Param(
                "data",
                ANY,
                default=None,
                role=Role.INSTRUCTION,
                variadic=True,
                doc="values the planner sees; they decide what is done, so they must be trusted",
            ),
            Param(
                "so_far",
                ListOf(STR),
                role=Role.INSTRUCTION,
                keyword_only=True,
                doc="given by edvac: the lines that were added before",
            ),
        ),
        ListOf(STR),
        Effect.PURE,
        "Let the planner write further lines, which go below the program.",
        timeout_s=1800.0,
        planned=False,
        yields=True,
        done_by="llm",
    ),
)
