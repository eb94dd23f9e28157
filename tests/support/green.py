"""Small programs under gevent and under eventlet, which put their own functions in the place of Python's."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib.util import find_spec

import pytest

from . import PROJECT
from .waiting import DEADLINE

_START = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import warnings; warnings.simplefilter('ignore'); import eventlet; eventlet.monkey_patch()",
}
LIBRARIES = [
    pytest.param(name, marks=pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed"))
    for name in _START
]


def run_green(library: str, program: str, *words: object) -> str:
    """Run a program that begins with the library's patches; what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{_START[library]}\n{textwrap.dedent(program)}", *map(str, words)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE,
    )
    return done.stdout
