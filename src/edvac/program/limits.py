"""How large a program and what it computes may be.

Every bound is checked before the work that it bounds, so that a hostile or mistaken program costs
little. Knows nothing of what the bounds protect against beyond the comment beside each.
"""

from __future__ import annotations

TEXT_BYTES = 512 * 1024  # of program text; the parser's cost grows with it
LINE_CHARS = 20_000  # one line; error messages quote it
NESTING = 40  # brackets and blocks inside each other; the parser and this package recurse on them
CALL_NESTING = 120  # nesting summed along the deepest chain of function calls
INT_BITS = 8_192  # of an int in pure code
LITERAL_DIGITS = 1_000  # of a number written in the text
TEXT_CHARS = 64 * 1024 * 1024  # of one text made by pure code
FORMAT_WIDTH = 1_000  # of a field in an f-string, and of padding methods
VALUE_DEPTH = 100  # containers inside each other in a value
PATTERN_CHARS = 500  # of a regular expression
SEARCHED_CHARS = 1_000_000  # of the text that a regular expression is run over
DECIMAL_EXPONENT = 1_000  # where a decimal is written out digit by digit
SHOWN_CHARS = 80  # of a value quoted in a message
