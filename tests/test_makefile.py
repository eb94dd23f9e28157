"""The Makefile's targets, each in its shortest form; `check` and `test` are left to .ci/run, which makes just these."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .bench.__main__ import BENCHMARKS
from .support import PROJECT

CI = ["check", "test"]


def make(*words: str, folder: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    """Run make to its end, with nothing of the make that may run the tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--no-print-directory", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_every_target_is_run() -> None:
    """By a test of this file, or by .ci/run."""
    [phony] = re.findall(r"^\.PHONY: (.*)", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    here = [name.split("_")[2] for name in globals() if name.startswith("test_make_")]
    assert sorted(phony.split()) == sorted([*here, *CI])
    assert (PROJECT / ".ci/run").read_text().splitlines()[-1] == f"make {' '.join(CI)}"


def test_make_demo(built_file: Path) -> None:
    done = make("demo")
    assert done.returncode == 0, done.stderr
    for name in ("anna", "berta", "carla", "doris"):
        assert f"{name}: has the lock, works for a second\n" in done.stdout
    assert done.stdout.endswith("# the server is stopped\n")


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_make_bench(built_file: Path, benchmark: str) -> None:
    done = make("bench", "SHORT=1", f"BENCH={benchmark}")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 2, "the command, and a line for each figure"
    assert "Traceback" not in done.stderr


def test_make_torture(built_file: Path) -> None:
    done = make("torture", "SEED=1", "SECONDS=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seed 1, for 1 s\n" in done.stdout
    assert re.search(r"^seed 1: \d+ grants, .* 0 violations\b", done.stdout, re.MULTILINE), done.stdout


def test_make_clean(tmp_path: Path) -> None:
    """Nothing that is made is left, and nothing else is gone (in a copy)."""
    kept = ["Makefile", "build.sh", "ipclocker", "pyproject.toml"]
    (tmp_path / "ipclocker").mkdir()
    for name in ("Makefile", "build.sh", "pyproject.toml"):
        shutil.copy(PROJECT / name, tmp_path)
    ignored = (PROJECT / ".gitignore").read_text().split()
    for name in ignored:
        (tmp_path / name.strip("/").replace("*", "x")).mkdir()
    assert make("clean", folder=tmp_path).returncode == 0
    assert sorted(os.listdir(tmp_path)) == sorted(["__pycache__", *kept]), "Python's own may stay"
