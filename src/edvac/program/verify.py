"""Is a program legal? (grows)"""

from __future__ import annotations

from edvac.core.signature import Catalogue
from edvac.program.assemble import assemble
from edvac.program.program import Program
from edvac.program.source import read_source


def parse(text: str, catalogue: Catalogue, *, name: str = "program.edv") -> Program:
    """The verified program that a text writes."""
    return assemble(read_source(text), catalogue, name)
