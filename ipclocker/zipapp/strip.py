"""Leave out of a module what no host runs, comments and docstrings, and keep each line at its number.

So the built file is a third smaller, and a traceback from a host still names the lines of the sources.
Runs on the developer's machine only and is not in the built file.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator

_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def strip_module(source: str, keep_docstrings: bool) -> str:
    """Return the module without comments, and with empty docstrings unless they are to be kept, as help texts are."""
    lines = io.StringIO(source).readlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.start[0] > 1:  # the first line may be for the kernel
            number, start = token.start
            lines[number - 1] = lines[number - 1][:start].rstrip() + "\n"
    if not keep_docstrings:
        for docstring in _docstrings(ast.parse(source)):
            _empty(docstring, lines)
    return "".join(lines)


def _docstrings(module: ast.Module) -> Iterator[ast.stmt]:
    for node in ast.walk(module):
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            yield node.body[0]


def _empty(text: ast.stmt, lines: list[str]) -> None:
    """Put an empty text in the place of one that stands alone in its lines, which stay as many."""
    assert text.end_lineno is not None
    first, last = text.lineno - 1, text.end_lineno - 1
    indent = lines[first][: text.col_offset]  # white space, where bytes and characters are the same
    is_alone = not indent.strip() and lines[last].rstrip().endswith(('"""', '"'))
    if is_alone:
        lines[first : last + 1] = [f'{indent}""\n', *["\n"] * (last - first)]
