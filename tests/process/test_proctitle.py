"""The name of a process, as others see it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("title", ["perl-fcgi-pm", "x", "", "a name of several words", "é" * 300, "x" * 10_000, "a\0b"])
def test_the_name_in_the_process_table(title: str) -> None:
    code = (
        "import os, sys; from ipclocker.process.proctitle import set_title; "
        f"before = dict(os.environ); set_title({title!r}); print(flush=True); sys.stdin.read(); "
        "assert dict(os.environ) == before; assert os.getenv('PATH')"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        wanted = title.encode().replace(b"\0", b" ")
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes().rstrip(b"\0")
        assert wanted.startswith(shown) and len(shown) >= min(len(wanted), 100)
        assert Path(f"/proc/{process.pid}/comm").read_bytes().rstrip(b"\n") == wanted[:15]
        assert b"PATH=" in Path(f"/proc/{process.pid}/environ").read_bytes()
        process.stdin.close()
    assert process.returncode == 0
