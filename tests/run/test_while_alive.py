"""What stays beside a command for as long as that runs carries little."""

from __future__ import annotations

import subprocess
import sys


def test_the_staying_process_does_not_import_what_is_large() -> None:
    script = "import sys, ipclocker.cli, ipclocker.cli.pidwatch; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    large = {"typer", "click", "subprocess", "logging", "random", "argparse", "json", "asyncio"}
    assert not large & set(done.stdout.split())
