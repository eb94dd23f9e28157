"""Modules in the built file: without comments and docstrings, and the same programs with the same line numbers."""

from __future__ import annotations

import ast
import zipfile
from pathlib import Path

import pytest

from ipclocker.zipapp.strip import strip_module

from ..support import PROJECT

MODULE = '''"""About
it."""
# a comment
import os  # why


class A:
    """One line."""

    def f(self) -> str:
        """Several

        lines: # no comment
        """
        return """ # text
    """ + "# text"  # comment

    def g(self) -> None:
        """Nothing else."""


def h(): "on its line"; return 1
'''


def lines_of(source: str) -> list[tuple[str, int]]:
    """The statements and expressions, but docstrings, each with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        is_docstring = isinstance(node, ast.Constant) and isinstance(node.value, str)
        is_docstring |= isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if hasattr(node, "lineno") and not is_docstring:
            found.append((type(node).__name__, node.lineno))
    return found


def test_comments_and_docstrings_go_and_lines_stay() -> None:
    stripped = strip_module(MODULE, keep_docstrings=False)
    assert lines_of(stripped) == lines_of(MODULE)
    for gone in ("About", "a comment", "why", "One line", "Several", "Nothing else"):
        assert gone not in stripped
    assert 'return """ # text\n    """ + "# text"\n' in stripped and '"on its line"; return 1' in stripped


def test_docstrings_that_are_help_stay() -> None:
    stripped = strip_module(MODULE, keep_docstrings=True)
    assert ast.dump(ast.parse(stripped), include_attributes=True) == ast.dump(
        ast.parse(MODULE), include_attributes=True
    )


@pytest.mark.parametrize("keep", [True, False])
def test_all_modules(keep: bool) -> None:
    for path in sorted((PROJECT / "ipclocker").rglob("*.py")):
        source = path.read_text()
        assert lines_of(strip_module(source, keep)) == lines_of(source), path


def test_what_is_in_the_built_file(built_file: Path) -> None:
    with zipfile.ZipFile(built_file) as archive:
        table = archive.read("site-packages/ipclocker/lock/server/table.py").decode()
        lockersh = archive.read("site-packages/ipclocker/cli/lockersh.py").decode()
        assert "site-packages/ipclocker/zipapp/strip.py" not in archive.namelist()
    source = (PROJECT / "ipclocker/lock/server/table.py").read_text()
    assert lines_of(table) == lines_of(source) and "# " not in table and len(table) < len(source) * 0.8
    assert "Run a command under a lock that holds across hosts." in lockersh
