"""Starts a program beside a command, to do one thing for it: a killer, or what is run when a lock is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

from .spawn import caller_environment


def spawn_helper(words: list[str], additions: Mapping[str, str] | None = None) -> int:
    """Start a program without waiting for it, in the caller's environment with these additions; return its pid.

    It reads nothing, and what it prints goes to stderr: that is not a part of the command's output. Raises OSError if
    it can't be executed.
    """
    return os.posix_spawnp(
        words[0],
        words,
        {**caller_environment(), **(additions or {})},
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, 2, 1)],
        setsigmask=(),  # in this process they may be blocked, to be read from a descriptor
        setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # which Python has ignored
    )
