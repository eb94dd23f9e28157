"""Showing a manual page by man, where there is one and the output is a terminal."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile


def show_by_man(page: str) -> bool:
    """Let man show a page in roff on this process's terminal; return False if it could not."""
    program = shutil.which("man")
    if program is None or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return False
    with tempfile.TemporaryFile("w+", encoding="ascii") as file:  # it has no name, so that a kill leaves nothing behind
        file.write(page)
        file.seek(0)
        os.fchmod(file.fileno(), 0o644)  # a man that gives up root's rights is to read it, too
        # These keys are for the pager. A handler, unlike SIG_IGN, is not inherited.
        before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGQUIT)}
        try:
            # By the name of its input, since not every man takes "-" for that.
            shown = subprocess.run([program, "-l", "/dev/stdin"], stdin=file, stderr=subprocess.DEVNULL)
        except OSError:
            return False
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return shown.returncode == 0
