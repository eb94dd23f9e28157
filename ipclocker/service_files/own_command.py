"""Finding the command line that starts a tool of this file, from any folder and with any environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection

from ..errors import UsageError

_USUAL_PYTHON = "/usr/bin/python3"  # which the file's first line names


def own_command(tool: str, tools: Collection[str]) -> list[str]:
    """Return the words that run a tool: this file as it was called, and the tool's name; `tools` are all tools.

    The interpreter comes first if it is not the usual one, which may be too old here. Raises UsageError if this file
    can't be started so, because it is a module that was given to an interpreter.
    """
    path = os.path.abspath(sys.argv[0])
    if os.path.basename(path) in tools:
        path = os.path.realpath(path)  # a link that is named after a tool is that tool and no other
    name = os.path.basename(path)
    if (name in tools and name != tool) or not os.access(path, os.X_OK):
        raise UsageError(f"{path} is nothing that runs {tool}: build the one file, and call that")
    is_usual = os.path.realpath(sys.executable) == os.path.realpath(_USUAL_PYTHON)
    return [*([] if is_usual else [sys.executable]), path, *([] if name == tool else [tool])]
