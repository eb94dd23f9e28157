"""Manual pages as somebody at a terminal sees them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ..support.site import Site
from .terminal import Terminal


@pytest.mark.parametrize(
    ("program", "shown"),
    [
        (
            '#!/bin/sh\n[ "$1" = -l ] && while read line; do echo "by man: $line"; done <"$2"\n',
            'by man: .TH "LOCKERSH"',
        ),
        ("#!/bin/sh\necho 'No manual entry' >&2; exit 16\n", "run a command under a lock"),
        (None, "run a command under a lock"),
    ],
    ids=["man", "a man that can't", "no man"],
)
def test_on_a_terminal(bare_site: Site, tmp_path: Path, program: str | None, shown: str) -> None:
    if program is not None:
        (tmp_path / "man").write_text(program)
        (tmp_path / "man").chmod(0o755)
    environment = {**bare_site.environment, "PATH": str(tmp_path), "TERM": "xterm"}
    terminal = Terminal([bare_site.file, "man", "lockersh"], environment)
    terminal.expect(shown)  # on a terminal that does not know how wide it is
    assert terminal.end() == 0
    terminal.clean_up()


# A pager of which a key means something else than the end.
PAGER = """#!/bin/sh
trap 'echo heard' INT QUIT
echo ready
read line </dev/tty || read line </dev/tty || read line </dev/tty
echo "seen $line"
"""


def start(site: Site, folder: Path) -> Terminal:
    """ipclocker man, with that as the host's man and a folder of its own for files that pass."""
    (folder / "man").write_text(PAGER)
    (folder / "man").chmod(0o755)
    (folder / "tmp").mkdir()
    environment = {**site.environment, "PATH": str(folder), "TERM": "xterm", "TMPDIR": str(folder / "tmp")}
    terminal = Terminal([site.file, "man", "lockersh"], environment)
    terminal.expect("ready")
    return terminal


def test_keys_are_the_pagers(bare_site: Site, tmp_path: Path) -> None:
    terminal = start(bare_site, tmp_path)
    for key in ("\x03", "\x1c"):
        terminal.type(key)
        terminal.expect("heard")
    terminal.line("enough")
    terminal.expect("seen enough")
    assert terminal.end() == 0
    terminal.clean_up()


def test_nothing_is_left_when_the_terminal_goes(bare_site: Site, tmp_path: Path) -> None:
    terminal = start(bare_site, tmp_path)
    os.kill(terminal.pid, signal.SIGHUP)
    assert terminal.end() == -signal.SIGHUP
    terminal.clean_up()
    assert list((tmp_path / "tmp").iterdir()) == []
