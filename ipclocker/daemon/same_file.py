"""Comparing an open file with the file of a name: pid files and log files may be replaced at any time."""

from __future__ import annotations

import os
from pathlib import Path


def is_at(descriptor: int, path: Path) -> bool:
    """Return True if the open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
