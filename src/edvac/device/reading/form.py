"""What has been filled into the form fields of a PDF, which its text layer does not hold."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

MAX_FIELDS = 2_000  # of one page
_MAX_VALUE = 200_000  # bytes


def filled(document: Any, page: Any) -> list[str]:
    """``name: value`` for each field of the page with a value."""
    from pypdfium2 import raw

    if document.formenv is None:
        return []
    form = document.formenv.raw
    lines = []
    for number in range(min(raw.FPDFPage_GetAnnotCount(page.raw), MAX_FIELDS)):
        annotation = raw.FPDFPage_GetAnnot(page.raw, number)
        if not annotation:
            continue
        try:
            if raw.FPDFAnnot_GetSubtype(annotation) != raw.FPDF_ANNOT_WIDGET:
                continue
            name = _string(raw.FPDFAnnot_GetFormFieldName, form, annotation)
            value = _string(raw.FPDFAnnot_GetFormFieldValue, form, annotation)
        finally:
            raw.FPDFPage_CloseAnnot(annotation)
        if value.strip() and value != "Off":
            lines.append(f"{' '.join(name.split())}: {value}")
    return list(dict.fromkeys(lines))


def _string(read: Callable[..., int], form: Any, annotation: Any) -> str:
    """A string of PDFium, which is UTF-16 with a zero at its end."""
    from pypdfium2 import raw

    size = read(form, annotation, None, 0)
    if not 2 < size <= _MAX_VALUE:
        return ""
    buffer = ctypes.create_string_buffer(size)
    read(form, annotation, ctypes.cast(buffer, ctypes.POINTER(raw.FPDF_WCHAR)), size)
    return buffer.raw[: size - 2].decode("utf-16-le", "replace")
