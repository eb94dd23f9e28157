"""Locales in which text is other bytes than UTF-8, for the programs that tests start."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path("/usr/share/i18n")
# Of the environment: they decide the locale, or what Python makes of it.
_NAMES = ("LANG", "LC_ALL", "LC_CTYPE", "PYTHONUTF8", "PYTHONCOERCECLOCALE", "PYTHONIOENCODING")
_NO_UTF8 = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LOCALES = ("C", "POSIX", "C.UTF-8", "ISO-8859-1")


def latin_locale(folder: Path) -> dict[str, str]:
    """Make the locale en_US.ISO-8859-1 there; the variables that choose it."""
    if shutil.which("localedef") is None or not list(SOURCES.glob("charmaps/ISO-8859-1*")):
        pytest.skip("this host has no localedef, or not its sources (Debian: locales)")
    made = folder / "en_US.ISO-8859-1"
    if not made.exists():
        subprocess.run(["localedef", "-i", "en_US", "-f", "ISO-8859-1", made], check=True)
    return {"LOCPATH": str(folder), "LC_ALL": made.name, **_NO_UTF8}


def in_locale(name: str, environment: dict[str, str], folder: Path) -> dict[str, str]:
    """An environment with one of LOCALES; `folder` has those that were made."""
    others = {key: value for key, value in environment.items() if key not in _NAMES}
    if name == "ISO-8859-1":
        return {**others, **latin_locale(folder)}
    return {**others, "LC_ALL": name, **({} if name == "C.UTF-8" else _NO_UTF8)}
