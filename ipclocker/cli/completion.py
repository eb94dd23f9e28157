"""--install-completion and --show-completion, which the file and each tool understand as their first word."""

from __future__ import annotations

import os
from typing import Callable

from ..docs.completion.bash import bash_script
from ..docs.completion.fish import fish_script
from ..docs.completion.install import install
from ..docs.completion.model import SHELLS, Node, linked, nodes
from ..docs.completion.zsh import zsh_script
from ..docs.tool_spec import FAMILY
from ..errors import OK, OUTPUT, IpclockerError, UsageError
from . import TOOLS
from .tool_specs import describe

_SCRIPTS: dict[str, Callable[[list[Node]], str]] = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}


def main(words: list[str]) -> int:
    """Print the completion script, or install it, as the first word says; the exit code."""
    option, equals, shell = words[0].partition("=")
    given = [*([shell] if equals else []), *words[1:]]
    if len(given) > 1:
        raise UsageError(f"'{given[1]}' is one word too many: {option} takes a shell, or nothing; see ipclocker --help")
    shell = given[0] if given else os.environ.get("SHELL", "").rpartition("/")[2]
    if shell not in SHELLS:
        problem = f"there is no completion for the shell '{shell}'" if shell else "it is not known which shell"
        raise UsageError(f"{problem}: say {option} and one of {', '.join(SHELLS)}")
    found = nodes(describe(FAMILY), map(describe, TOOLS))
    script = _SCRIPTS[shell](found)
    if option == "--show-completion":
        print(script, end="")
        return OK
    try:
        print("\n".join(install(shell, script, linked(found))))
    except OSError as error:
        problem = f"the completion can't be written to {error.filename}: {error.strerror}; --show-completion prints it"
        raise IpclockerError(problem, OUTPUT) from None
    return OK
