"""A file without a name, which processes share that are forked from the one that has made it."""

from __future__ import annotations

import os
import tempfile


def unnamed_file(title: str) -> int:
    """Return a descriptor of a new one; `title` is for /proc/PID/fd. Raises OSError."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(title)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
