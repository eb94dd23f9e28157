"""The result of a check of doctor."""

from __future__ import annotations

from typing import NamedTuple

OK, WARNING, FAILED = "ok", "warning", "failed"


class Finding(NamedTuple):
    """The result of a check: its name, OK, WARNING or FAILED, the fact, and what to do if that is not OK."""

    name: str
    state: str
    found: str
    advice: str = ""
