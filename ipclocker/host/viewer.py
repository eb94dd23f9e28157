"""A manual page shown to a person: by man, where there is one and somebody sits at a terminal."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile


def show_by_man(page: str) -> bool:
    """Let man show a page in roff on this process's terminal; whether it could."""
    program = shutil.which("man")
    if program is None or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return False
    with tempfile.NamedTemporaryFile("w", prefix="ipclocker-", suffix=".1", encoding="ascii") as file:
        file.write(page)
        file.flush()
        os.fchmod(file.fileno(), 0o644)  # a man that gives up root's rights is to read it, too
        # ^C is for the pager. A handler, unlike SIG_IGN, is not inherited.
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            shown = subprocess.run([program, "-l", file.name], stderr=subprocess.DEVNULL)
        except OSError:
            return False
        finally:
            signal.signal(signal.SIGINT, before)
    return shown.returncode == 0
