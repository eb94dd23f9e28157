"""The built file, run on this host with a cache of its own."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

PYTHON = "/usr/bin/python3"  # what the file's first line names
NOBODY = 65534
VERSION = re.compile(r"Version: \d+\.\d+\.\d+\n")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as two users")


class Run:
    """Runs the built file with a cache of its own."""

    def __init__(self, file: Path, cache: Path) -> None:
        self.file = file
        self.cache = cache

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "IPCLOCKER_CACHE": str(self.cache), **more}

    def __call__(self, *before: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run `BEFORE ipclocker lockersh --version`; `more` goes to subprocess.run."""
        command = [*before, self.file, "lockersh", "--version"]
        more.setdefault("env", self.environment())
        return subprocess.run(command, capture_output=True, text=True, timeout=60, **more)

    def works(self, *before: str | Path, **more: Any) -> None:
        done = self(*before, **more)
        assert (done.returncode, done.stderr) == (0, "")
        assert VERSION.fullmatch(done.stdout)

    @property
    def folder(self) -> Path:
        return self.cache / f"ipclocker-{os.geteuid()}"

    @property
    def pack(self) -> Path:
        """The one file in the cache."""
        [path] = self.folder.iterdir()
        return path
