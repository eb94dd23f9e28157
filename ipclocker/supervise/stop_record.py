"""The programs that somebody has stopped, noted for the supervisor that follows when this one is killed.

The monitor makes the record, and each supervisor inherits it: so what was stopped stays so until it is told to start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

from ..process.unnamed_file import unnamed_file

_LONGEST = 1 << 24  # bytes: far more than the names of all programs that a list may have


class StopRecord:
    """The names of the programs that are not to run. Made before a fork, it is one for both processes."""

    def __init__(self) -> None:
        """Begin without names. Raises OSError if there can be no further file."""
        self._descriptor = unnamed_file("ipclocker-stopped")

    def read(self) -> set[str]:
        """Return the names that were noted last."""
        line, _, _ = os.pread(self._descriptor, _LONGEST, 0).partition(b"\n")
        return set(json.loads(line or b"[]"))

    def write(self, names: Iterable[str]) -> None:
        """Note these names, and no others."""
        os.pwrite(self._descriptor, json.dumps(sorted(names)).encode() + b"\n", 0)  # what is behind the line is old
