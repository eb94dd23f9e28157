"""The built file: small, pure Python, and the same bytes wherever and by whomever it is built."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .support import PROJECT

SUPPORTED = [(3, minor) for minor in range(9, 14)]


def clone(target: Path) -> Path:
    """A copy of all that a clone would have, with what is not committed yet."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (PROJECT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, target / name)
    return target


def make_environment(folder: Path) -> Path:
    """A new virtual environment with what a build needs; its interpreter."""
    text = (PROJECT / "pyproject.toml").read_text()
    pins = re.findall(r'"((?:shiv|typer-slim|click|annotated-doc)==[^"]+)"', text)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *pins], check=True)
    return python


def test_the_same_bytes_from_other_places(built_file: Path, tmp_path: Path) -> None:
    """Another clone, another virtual environment, other umasks, clocks and installers."""
    python = make_environment(tmp_path / "environment")
    project = clone(tmp_path / "a longer way" / "clone")
    expected = built_file.read_bytes()
    for umask, epoch in [(0o077, "0"), (0o002, "-1"), (0, "99999999999999"), (0o027, "yesterday")]:
        environment = {**os.environ, "PYTHON": str(python), "SOURCE_DATE_EPOCH": epoch, "LC_ALL": "C"}
        subprocess.run(["./build.sh"], cwd=project, env=environment, umask=umask, check=True)
        assert (project / "dist/ipclocker").read_bytes() == expected, f"umask {umask:o}, epoch {epoch}"


def test_a_build_refuses_what_is_not_pinned(tmp_path: Path) -> None:
    project = clone(tmp_path)
    text = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(re.sub("click==[0-9.]+", "click==1.0", text))
    command = [sys.executable, "-m", "ipclocker.zipapp.build", "stage", "stage"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"build: click [0-9.]+ is installed, click==1.0 is pinned: .*\n", done.stderr)


def test_it_is_small_and_starts_isolated(built_file: Path) -> None:
    contents = built_file.read_bytes()
    assert len(contents) <= 700_000  # bytes: it is copied to many hosts, and read at each start
    assert contents.startswith(b"#!/usr/bin/python3 -ISXutf8\n")
    assert built_file.stat().st_mode & 0o777 == 0o755


def test_it_is_a_shiv_file_of_pure_python(built_file: Path) -> None:
    command = [sys.executable, "-c", "from shiv.info import main; main()", str(built_file)]
    described = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "ipclocker.__main__:main" in described
    with zipfile.ZipFile(built_file) as archive:
        assert archive.testzip() is None
        names = [name.partition("/")[2] for name in archive.namelist() if name.startswith("site-packages/")]
    packages = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert packages == {"ipclocker", "typer", "click", "annotated_doc"}
    assert {Path(name).suffix for name in names if ".dist-info/" not in name} <= {".py", ".typed"}
    assert sum("LICENSE" in name for name in names) == 3


def interpreter(version: tuple[int, int]) -> Path | None:
    """An interpreter of that version on this machine, if any."""
    name = f"python{version[0]}.{version[1]}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [
        *pyenv.glob(f"{version[0]}.{version[1]}.*/bin/{name}"),
        *map(Path, filter(None, [shutil.which(name)])),
    ]
    for path in candidates:
        if subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
            return path
    return None


@pytest.mark.parametrize("version", SUPPORTED, ids=str)
def test_it_runs_on(version: tuple[int, int], built_file: Path, tmp_path: Path) -> None:
    python = interpreter(version)
    if not python:
        pytest.skip(f"there is no Python {version} here")
    environment = {**os.environ, "IPCLOCKER_CACHE": str(tmp_path)}
    for _ in ("the first time", "from the cache"):
        done = subprocess.run(
            [python, built_file, "lockersh", "--version"], env=environment, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert re.fullmatch(r"Version: \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize("version", [(3, 6), (3, 7), (3, 8)], ids=str)
class TestTooOldAPython:
    """One line that says so, and how to name another."""

    def run(self, version: tuple[int, int], built_file: Path, named: Path | str) -> subprocess.CompletedProcess[str]:
        python = interpreter(version)
        if not python:
            pytest.skip(f"there is no Python {version} here")
        environment = {**os.environ, "IPCLOCKER_PYTHON": str(named)}
        command = [str(python), str(built_file), "lockersh", "--version"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)

    def test_says_so(self, version: tuple[int, int], built_file: Path) -> None:
        done = self.run(version, built_file, "")
        assert (done.returncode, done.stdout) == (69, "")
        assert re.fullmatch(r"ipclocker: Python 3\.\d is too old, .*IPCLOCKER_PYTHON=.*\n", done.stderr)

    def test_another_may_be_named(self, version: tuple[int, int], built_file: Path) -> None:
        done = self.run(version, built_file, sys.executable)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("Version: ")

    def test_the_other_may_be_missing(self, version: tuple[int, int], built_file: Path) -> None:
        done = self.run(version, built_file, "/no/python")
        assert (done.returncode, done.stderr) == (
            69,
            "ipclocker: IPCLOCKER_PYTHON=/no/python can't be run: No such file or directory\n",
        )

    def test_the_other_may_be_too_old(self, version: tuple[int, int], built_file: Path) -> None:
        done = self.run(version, built_file, interpreter(version) or "")
        assert done.returncode == 69
        assert "too old" in done.stderr


def test_the_launcher_parses_on_too_old_a_python() -> None:
    import ast

    ast.parse((PROJECT / "ipclocker/zipapp/launcher.py").read_text(), feature_version=(3, 6))
