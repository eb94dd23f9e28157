"""Prints a line for people on stderr, whatever has become of that: closed, full, or a terminal that is gone.

It does not use `print`: what that can't write stays in its buffer and fails again later, where nobody expects it.
"""

from __future__ import annotations

import contextlib
import os

from ..net.text import encode_text


def print_stderr(text: str, end: str = "\n") -> None:
    """Write the text to stderr at once. What can't be written is lost."""
    with contextlib.suppress(OSError):
        os.write(2, encode_text(text + end))
