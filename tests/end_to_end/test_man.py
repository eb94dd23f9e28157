"""Manual pages as somebody at a terminal sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from .site import Site
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
