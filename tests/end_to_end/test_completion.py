"""TAB, pressed in an interactive shell that was set up as --install-completion says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ..support.site import Site
from .terminal import Terminal

BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")
LINES = [  # what is typed, and what TAB makes of it
    ("ipclocker check-p", "ipclocker check-pidstatd "),
    ("lockstat br", "lockstat break "),
    ("ipclocker lockstat ver", "ipclocker lockstat verify "),
    ("lockersh --release-", "lockersh --release-tries"),
    ("lockerd --pid-file onl", "lockerd --pid-file onlyfile "),
    ("lockersh --lock x onlypro", "lockersh --lock x onlyprogram "),
    ("lockersh --lock x cat onl", "lockersh --lock x cat onlyfile "),
    ("ipclocker man check-l", "ipclocker man check-lockerd "),
]


def install(site: Site, home: Path, shell: str) -> dict[str, str]:
    """The environment of a user who has installed it."""
    (home / "onlyfile").write_text("")
    (home / "bin").mkdir()
    for name in ("ipclocker", "lockstat", "lockersh", "lockerd"):
        (home / "bin" / name).symlink_to(site.file)
    (home / "bin" / "onlyprogram").write_text("#!/bin/sh\n")
    (home / "bin" / "onlyprogram").chmod(0o755)
    environment = {
        "PATH": f"{home}/bin:/usr/bin:/bin",
        "HOME": str(home),
        "TERM": "dumb",
        "IPCLOCKER_CACHE": site.environment["IPCLOCKER_CACHE"],
    }
    command = ["ipclocker", "--install-completion", shell]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    fpath = re.findall(r"'(fpath=.*?)'", done.stdout)
    (home / ".zshrc").write_text(
        "".join(f"{line}\n" for line in fpath) + "autoload -U compinit; compinit -u\nPS1='%% '\n"
    )
    (home / ".bashrc").write_text(f". {BASH_COMPLETION}\nPS1='% '\nbind 'set bell-style none'\n")
    return environment


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_tab(shell: str, bare_site: Site, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None or (shell == "bash" and not BASH_COMPLETION.exists()):
        pytest.skip(f"there is no {shell} here, or no bash-completion")
    environment = install(bare_site, tmp_path, shell)
    here = os.getcwd()
    os.chdir(tmp_path)  # a terminal begins where this process is
    try:
        terminal = Terminal([program, "-i"], environment)
    finally:
        os.chdir(here)
    terminal.expect("% ")
    for typed, completed in LINES:
        terminal.type(f"{typed}\t")
        terminal.expect(re.escape(completed))
        terminal.type("\x15")  # the line is taken back
    terminal.line("exit")
    terminal.end()
    terminal.clean_up()
