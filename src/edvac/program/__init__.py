"""The instruction set: program text in, verified programs and their pure evaluation out.

Syntax → types and effects (`verify`) → steps announced to a `Host` (`Evaluator`), with a pure
library in between. Knows nothing of how steps are executed, of models, policies or journals.
"""

from edvac.program.evaluate import Evaluator
from edvac.program.fuel import Fuel
from edvac.program.host import Host, Order, StepCall, Unreached
from edvac.program.library import FunctionDoc, library
from edvac.program.previous import PREVIOUS, no_previous
from edvac.program.printer import format_program
from edvac.program.program import Function, Outline, ParamInfo, Program, Use
from edvac.program.scope import Scope
from edvac.program.stubs import stubs
from edvac.program.verify import Diagnostic, check, parse, verify_prefix

__all__ = [
    "PREVIOUS",
    "Diagnostic",
    "Evaluator",
    "Fuel",
    "Function",
    "FunctionDoc",
    "Host",
    "Order",
    "Outline",
    "ParamInfo",
    "Program",
    "Scope",
    "StepCall",
    "Unreached",
    "Use",
    "check",
    "format_program",
    "library",
    "no_previous",
    "parse",
    "stubs",
    "verify_prefix",
]
