"""What the short runs of the proofs share."""

from __future__ import annotations

import random

import pytest


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """The same for each run of a test."""
    return random.Random(request.node.name)
