"""Lazy imports: modules that others import and mostly do not use are loaded at their first use.

typer and click import a good part of the standard library for what our command lines never do: to start editors
and browsers, to show Python sources, to unpack archives. Loading these few modules takes a tenth of a tool's start.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

# Imported as a whole (`import bz2`) by shutil, inspect and typer, which do not touch them while they are imported.
UNUSED = ("bz2", "lzma", "subprocess", "tokenize")


class _Later(ModuleType):
    """A module that is loaded when an attribute of it is missing, that is, at its first use."""

    def __getattr__(self, name: str) -> Any:
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert self.__spec__
        assert self.__spec__.loader
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def load_later(names: tuple[str, ...] = UNUSED) -> None:
    """Let these modules of the standard library be loaded at their first use instead of their import."""
    for name in names:
        spec = None if name in sys.modules else importlib.util.find_spec(name)
        if spec:
            module = importlib.util.module_from_spec(spec)
            module.__class__ = _Later
            sys.modules[name] = module
