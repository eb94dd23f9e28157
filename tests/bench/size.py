"""The size of the benchmarks: the full one, or with SHORT=1 in the environment the least that shows that they run."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")


def sized(full: T, short: T) -> T:
    """The number for figures that can be relied upon, or the one for a run of some seconds."""
    return short if os.environ.get("SHORT") else full
