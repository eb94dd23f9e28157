"""What the short runs of the proofs share."""

from __future__ import annotations

import random
from pathlib import Path

import pytest


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """The same for each run of a test."""
    return random.Random(request.node.name)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the built file keeps its modules, so that nothing is left on this host."""
    return tmp_path_factory.mktemp("cache")
