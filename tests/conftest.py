"""What all tests share."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from .support import PROJECT
from .support.site import PYTHON, Run


@pytest.fixture(scope="session")
def built_file() -> Path:
    """The one file that is copied to hosts, built anew if any source is newer."""
    # Under `make test`, make's own variables would reach this make.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    subprocess.run(["make", "--silent", "dist/ipclocker"], cwd=PROJECT, env=environment, check=True)
    return PROJECT / "dist" / "ipclocker"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the built file keeps its modules, so that nothing is left on this host."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(built_file: Path, tmp_path: Path) -> Run:
    if not Path(PYTHON).exists():
        pytest.skip(f"this host has no {PYTHON}")
    cache = tmp_path / "cache"
    cache.mkdir()
    return Run(built_file, cache)
