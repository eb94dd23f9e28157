"""A plugin for pytest: PLANTED=FAULT pytest -p tests.proof.planting TEST... runs tests with a fault in the product.

The fault (planted.py) is in the process of the tests, and in each lockerd on etcd that they start.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partialmethod

from ..support import PROJECT
from ..support.waiting import DEADLINE
from .planted import before_main, plant


def pytest_configure() -> None:
    from ..support.replicas import Replica

    fault = os.environ["PLANTED"]
    plant(fault)
    Replica.__init__ = partialmethod(Replica.__init__, before=before_main(fault))  # type: ignore[method-assign,assignment]


def is_found_by(fault: str, test: str) -> bool:
    """Whether a test fails with a fault."""
    words = ["-q", "-x", "-p", "tests.proof.planting", "-p", "no:cacheprovider", "-p", "no:xdist", test]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=PROJECT,
        env={**os.environ, "PLANTED": fault, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
    )
    assert done.returncode in (0, 1), f"{test} could not be run: {done.stdout}{done.stderr}"
    return done.returncode == 1
