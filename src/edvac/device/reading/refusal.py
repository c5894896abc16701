"""Why a document, or a part of one, has no text that could be had."""

from __future__ import annotations

from typing import Literal, TypeAlias

Kind: TypeAlias = Literal[
    "unreadable",
    "encrypted",
    "empty",
    "too_large",
    "ocr_missing",
    "library_missing",
    "part_unknown",
    "not_database",
    "database_broken",
    "table_unknown",
    "column_unknown",
    "query_unfit",
    "query_refused",
    "query_too_long",
    "rows_too_many",
    "value_unfit",
    "rows_unfit",
]


class Unreadable(Exception):
    """The message says why, as a clause; `kind` decides what the user is told to do."""

    def __init__(self, why: str, kind: Kind = "unreadable") -> None:
        super().__init__(why)
        self.kind: Kind = kind


NO_OCR = "tesseract is not installed"
