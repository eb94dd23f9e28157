"""Questions about open files that more than one part of a server has."""

from __future__ import annotations

import os
from pathlib import Path


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
