"""A line for a person, on stderr, whatever has become of that: closed, full, or a terminal that is gone.

Not `print`: what could not be written stays in its buffer and fails again later, where nobody expects it.
"""

from __future__ import annotations

import contextlib
import os


def tell(text: str, end: str = "\n") -> None:
    """Write the text to stderr at once, if that can be."""
    with contextlib.suppress(OSError):
        os.write(2, (text + end).encode(errors="surrogateescape"))
