"""How the built file begins and ends: its name, its output, its errors; and what it loads later."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

from ..support import PROJECT
from ..support.site import PYTHON, VERSION_LINE, Run


class TestTheEnd:
    def test_output_that_nobody_reads(self, run: Run) -> None:
        command = '"$0" lockersh --version | true; exit "${PIPESTATUS[0]}"'
        done = subprocess.run(["bash", "-c", command, run.file], env=run.environment(), capture_output=True, text=True)
        assert done.stderr == ""

    def test_output_that_can_not_be_written(self, run: Run) -> None:
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [run.file, "lockersh", "--version"],
                env=run.environment(),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
            )
        assert done.returncode not in (0, 1)
        assert done.stderr.count("\n") == 1
        assert "No space left on device" in done.stderr

    def test_no_output_at_all(self, run: Run) -> None:
        done = subprocess.run(["/bin/sh", "-c", '"$0" lockersh --version >&- 2>&-', run.file], env=run.environment())
        assert done.returncode in (0, 74)


def test_a_link_named_after_a_tool_is_that_tool(run: Run, tmp_path: Path) -> None:
    link = tmp_path / "lockersh"
    link.symlink_to(run.file)
    for before in ([], [PYTHON]):
        done = subprocess.run([*before, link, "--version"], env=run.environment(), capture_output=True, text=True)
        assert VERSION_LINE.fullmatch(done.stdout), done.stderr


def test_a_damaged_file_says_so(run: Run, tmp_path: Path) -> None:
    """The directory of the archive is whole, its contents are not, as while it is copied over another."""
    contents = bytearray(run.file.read_bytes())
    begin = contents.index(b"site-packages/typer/main.py") + len("site-packages/typer/main.py")
    contents[begin : begin + 5000] = bytes(5000)
    damaged = tmp_path / "ipclocker"
    damaged.write_bytes(contents)
    damaged.chmod(0o755)
    done = subprocess.run([damaged, "lockersh", "--version"], env=run.environment(), capture_output=True, text=True)
    assert done.returncode == 70
    assert re.fullmatch(r"ipclocker: \S+ is damaged, copy it anew \(.*\)\n", done.stderr), done.stderr


def test_what_is_loaded_later_works_when_it_is_used() -> None:
    script = """
import sys
from ipclocker.zipapp.lazy_imports import UNUSED, load_later
load_later()
before = len(sys.modules)
import bz2, shutil, subprocess, tokenize
assert "selectors" not in sys.modules, "not loaded yet"
from subprocess import run
assert run(["true"]).returncode == 0
assert bz2.decompress(bz2.compress(b"x")) == b"x"
assert tokenize.tok_name and shutil.get_unpack_formats()
load_later()
assert all(type(sys.modules[name]) is type(sys) for name in ("bz2", "subprocess", "tokenize"))
"""
    subprocess.run([sys.executable, "-c", script], cwd=PROJECT, check=True)


def test_a_file_that_is_not_as_it_was_built_says_so_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    """Every entry is whole, but they do not belong together, as if the file was replaced while it was read."""
    mixed = tmp_path / "ipclocker"
    with zipfile.ZipFile(run.file) as archive, zipfile.ZipFile(mixed, "w") as other:
        for name in archive.namelist():
            added = b"\n" if name == "site-packages/click/core.py" else b""
            other.writestr(name, archive.read(name) + added)
    done = subprocess.run([PYTHON, mixed, "--version"], env=run.environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (70, 1)
    assert "is damaged, copy it anew" in done.stderr
    assert not any(run.folder.iterdir())
